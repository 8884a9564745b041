from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from modelnative.errors import UserError
from modelnative.tasks.arithmetic.problems import VOCABULARY, ArithmeticProblems
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.calculator import LIMIT
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.contract.task import program_length, replace

KEYS = {name: i for i, name in enumerate(VOCABULARY)}
BLANK = KEYS["EOS"]


def words(text: str) -> list[str]:
    return text.split()


@dataclass
class Reference:
    """The key table of the design, one key of one episode at a time, in plain Python; None is an empty register."""

    stage: int
    operands: tuple[int, ...]
    entry: int | None = None
    accumulator: int | None = None
    memory: int | None = None
    pending: str | None = None
    done: bool = False
    success: bool = False
    invalid: bool = False
    paid: set[str] = field(default_factory=set)
    milestones: float = 0.0

    @property
    def target(self) -> int:
        a, b, c, d, e = (*self.operands, 0, 0)[:5]
        return [a * b + c, (a * b + c) - d, (a * b + c) - (d * e)][self.stage]

    @property
    def value(self) -> int | None:
        if self.pending is not None and self.entry is not None:
            assert self.accumulator is not None
            if self.pending == "MUL":
                return self.accumulator * self.entry
            return self.accumulator + self.entry if self.pending == "ADD" else self.accumulator - self.entry
        return self.entry if self.entry is not None else self.accumulator

    def press(self, key: str) -> None:
        self.success = self.invalid = False
        self.milestones = 0.0
        if self.done:
            return
        if key in ("ANS", "EOS"):
            self.done = True
            self.success = key == "ANS" and self.value == self.target
        elif key.isdigit() or (key == "RCL" and self.memory is not None):
            before, self.entry = self.entry, int(key) if key.isdigit() else self.memory
            assert self.value is not None
            if len(str(abs(self.value))) > 8:  # does not fit the display
                self.entry, self.invalid = before, True
        elif key in ("MUL", "ADD", "SUB") and self.value is not None:
            self.accumulator, self.pending, self.entry = self.value, key, None
        elif key == "STO" and self.value is not None:
            self.memory = self.accumulator = self.value
            self.pending = self.entry = None
        else:
            self.invalid = True
        self._pay()

    def _pay(self) -> None:
        a, b, c, d, e = (*self.operands, 0, 0)[:5]
        made = self.pending if self.entry is not None else None
        for name, operator, result, stages in (
            ("product", "MUL", a * b, {0, 1, 2}),
            ("total", "ADD", a * b + c, {1, 2}),
            ("subtrahend", "MUL", d * e, {2}),
        ):
            if name not in self.paid and self.stage in stages and made == operator and self.value == result:
                self.paid.add(name)
                self.milestones += 0.1

    @property
    def registers(self) -> dict[str, str]:
        shown = {"entry": self.entry, "accumulator": self.accumulator, "pending": self.pending, "memory": self.memory}
        return {name: "" if v is None else str(v) for name, v in {**shown, "display": self.value}.items()}

    @property
    def display(self) -> list[int]:
        if self.value is None:
            return [BLANK] * 9
        sign = KEYS["SUB"] if self.value < 0 else BLANK
        return [sign, *(BLANK if c == " " else int(c) for c in f"{abs(self.value):8d}")]


def problems_of(task: Arithmetic, given: list[tuple[int, tuple[int, ...]]]) -> ArithmeticProblems:
    return ArithmeticProblems.cat([task.parse(stage, " ".join(map(str, operands))) for stage, operands in given])


def compare(given: list[tuple[int, tuple[int, ...]]], programs: list[list[str]]) -> None:
    """Run all programs at once and compare each register after each key with the reference."""
    task = Arithmetic(reward="milestone")
    state = task.begin(problems_of(task, given))
    references = [Reference(*problem) for problem in given]
    length = max(map(len, programs))
    padded = [program + ["CTX"] * (length - len(program)) for program in programs]
    for t in range(length):
        step = task.step(state, torch.tensor([KEYS[program[t]] for program in padded]))
        state = step.state
        for i, reference in enumerate(references):
            reference.press(padded[i][t])
            context = (given[i], padded[i][: t + 1])
            assert task.registers(state, i) == reference.registers, context
        assert step.feedback.tolist() == [r.display for r in references]
        assert step.invalid.tolist() == [r.invalid for r in references]
        assert step.success.tolist() == [r.success for r in references]
        assert step.done.tolist() == [r.done for r in references]
        assert step.reward.tolist() == pytest.approx([r.success + r.milestones for r in references], abs=1e-6)
    records = task.records(task.recall(state.key), state)
    for (stage, operands), program, reference, record in zip(given, programs, references, records, strict=True):
        ending = next((key for key in program if key in ("ANS", "EOS")), None)
        answer = reference.value if ending == "ANS" else None
        problem = " ".join(map(str, operands))
        expected = {"problem": problem, "operands": list(operands), "answer": answer, "target": reference.target}
        assert record == expected, stage


# Keys that end the episode are rare, so that long programs are reached; one digit in two is an operand's.
going = st.sampled_from(VOCABULARY[:17] * 3 + ("MUL", "ADD", "SUB", "STO", "RCL") * 6 + ("ANS", "EOS"))


@st.composite
def episodes(draw: st.DrawFn) -> tuple[int, tuple[int, ...], list[str]]:
    stage = draw(st.integers(0, 2))
    operands = tuple(draw(st.lists(st.integers(0, 9), min_size=3 + stage, max_size=3 + stage)))
    own = st.sampled_from(operands).map(str)
    return stage, operands, draw(st.lists(own | going, min_size=1, max_size=40))


SQUARES = words("9 MUL 9 STO MUL RCL STO MUL RCL STO MUL RCL MUL 9 SUB 1 SUB RCL SUB RCL SUB RCL STO MUL RCL 3 ANS")


@given(st.lists(episodes(), min_size=1, max_size=6))
@example([(0, (9, 9, 9), SQUARES)])
@example([(0, (0, 1, 2), ["ANS"]), (0, (0, 0, 0), ["EOS"]), (0, (0, 0, 0), ["ANS", "0", "ANS"])])
@example([(2, (3, 7, 2, 4, 5), words("RCL ADD 4 MUL 5 STO STO 3 MUL 7 ADD 2 SUB RCL ANS 1 MUL ANS"))])
def test_keys_against_the_reference(batch: list[tuple[int, tuple[int, ...], list[str]]]) -> None:
    compare([(stage, operands) for stage, operands, _ in batch], [program for *_, program in batch])


def test_thousands_of_presses_against_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    weights = torch.tensor([1.0] * 10 + [1, 4, 3, 3, 0.2, 3, 3, 0.1])
    given, programs = [], []
    for _ in range(300):
        stage = draw(3)
        given.append((stage, tuple(draw(10) for _ in range(3 + stage))))
        keys = torch.multinomial(weights, 40, replacement=True, generator=generator)
        programs.append([VOCABULARY[key] for key in keys])
    compare(given, programs)


def test_a_result_too_wide_for_the_display_is_an_invalid_press() -> None:
    task = Arithmetic()
    state = task.begin(task.parse(0, "1 2 3"))
    for key in words("5 ADD 5 STO MUL RCL STO MUL RCL STO MUL"):
        state = task.step(state, torch.tensor([KEYS[key]])).state
    assert task.registers(state, 0)["display"] == "10000"  # whose square has nine digits
    step = task.step(state, torch.tensor([KEYS["RCL"]]))
    assert step.invalid.tolist() == [True]
    assert task.registers(step.state, 0) == task.registers(state, 0)


@given(st.lists(st.integers(1 - LIMIT, LIMIT - 1) | st.integers(-20_000, 20_000), min_size=1))
@example([0, 9_999, 10_000, 10_001, 19_999, 20_000, LIMIT - 1, 99_990_000, 90_000_000, 10_000_000])
@example([-1, -9_999, -10_000, -10_001, -19_999, -20_000, 1 - LIMIT, -99_990_000, -90_000_000, -10_000_000])
def test_the_display_of_every_width(values: list[int]) -> None:
    task = Arithmetic()
    state = task.begin(task.parse(0, "1 2 3"))[torch.zeros(len(values), dtype=torch.int64)]
    assert task.feedback(state).tolist() == [[BLANK] * 9] * len(values)
    calculator = dataclasses.replace(state.calculator, value=torch.tensor(values))
    shown = task.feedback(replace(state, calculator=calculator)).tolist()
    for value, tokens in zip(values, shown, strict=True):
        digits = [BLANK if c == " " else int(c) for c in f"{abs(value):8d}"]
        assert tokens == [KEYS["SUB"] if value < 0 else BLANK, *digits], value


# Problems


@pytest.fixture(scope="module")
def task() -> Arithmetic:
    return Arithmetic()


def test_the_number_of_problems(task: Arithmetic) -> None:
    assert task.spec.stages == ("T0", "T1", "T2")
    assert [task.count(stage) for stage in range(3)] == [1_000, 10_000, 100_000]
    for stage in range(3):
        sizes = {split: task.count(stage, split) for split in ("all", "train", "heldout")}
        assert sizes["train"] + sizes["heldout"] == sizes["all"]
        assert sizes["train"] / sizes["all"] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("stage", range(3))
def test_enumeration_is_every_choice_of_operands_once(task: Arithmetic, stage: int) -> None:
    chunks = list(task.enumerate(stage, chunk=997))
    assert all(len(chunk) == 997 for chunk in chunks[:-1])
    problems = ArithmeticProblems.cat(chunks)
    count = 3 + stage
    place_values = 10 ** torch.arange(count - 1, -1, -1)
    assert torch.equal((problems.operands[:, :count] * place_values).sum(1), torch.arange(10**count))
    assert bool((problems.operands[:, count:] == 0).all())
    context = [*range(count), KEYS["CTX"], *[KEYS["EOS"]] * (5 - count)]
    assert torch.equal(problems.context[:, :count], problems.operands[:, :count])
    assert problems.context[:, count:].unique(dim=0).tolist() == [context[count:]]


@pytest.mark.parametrize("reward", ["outcome", "milestone", "potential"])
@pytest.mark.parametrize("feedback", ["display", "none"])
def test_contract(feedback: str, reward: str) -> None:
    task = Arithmetic(feedback=feedback, reward=reward)
    assert task.spec.feedback_width == (9 if feedback == "display" else 0)
    check_task(task, limit=1_000 if reward == "potential" else 200_000)


def test_the_oracle_solves_all_111_000_problems(task: Arithmetic) -> None:
    solved, right = 0, 0
    for stage, length in enumerate((6, 8, 12)):
        for problems in task.enumerate(stage):
            program = task.oracle(problems)
            assert bool((program_length(program, BLANK) == length).all())
            state = task.begin(problems)
            for t in range(length):
                step = task.step(state, program[:, t])
                state = step.state
                assert not bool(step.invalid.any())
            solved += int(step.success.sum())
            a, b, c, d, e = problems.operands.unbind(1)
            right += int((state.calculator.value == (a * b + c) - (d * e if stage == 2 else d)).sum())
    assert solved == right == 111_000


def test_the_programs_of_the_design(task: Arithmetic) -> None:
    for stage, text, expected in (
        (0, "3 7 2", "3 MUL 7 ADD 2 ANS"),
        (1, "3 7 2 4", "3 MUL 7 ADD 2 SUB 4 ANS"),
        (2, "3,7,2,4,5", "4 MUL 5 STO 3 MUL 7 ADD 2 SUB RCL ANS"),
    ):
        program = task.oracle(task.parse(stage, text))[0]
        assert [VOCABULARY[t] for t in program if t != BLANK] == expected.split()


@given(st.integers(0, 2), st.integers(0, 2**32))
def test_samples_are_of_the_split_and_of_the_stage(stage: int, seed: int) -> None:
    task = Arithmetic()
    for split in ("all", "train", "heldout"):
        problems = task.sample(torch.full((64,), stage), torch.Generator().manual_seed(seed), split)
        keys = torch.cat([chunk.key for chunk in task.enumerate(stage, split)])
        assert bool(torch.isin(problems.key, keys).all())


def test_samples_are_uniform(task: Arithmetic) -> None:
    n = 200_000
    problems = task.sample(torch.zeros(n, dtype=torch.int64), torch.Generator().manual_seed(0))
    counts = torch.unique(problems.key, return_counts=True)[1]
    size = task.count(0, "train")
    assert len(counts) == size
    chi = float(((counts - n / size) ** 2 / (n / size)).sum())
    assert abs(chi - (size - 1)) < 5 * (2 * (size - 1)) ** 0.5


@pytest.mark.parametrize("text", ["", "3 7", "3 7 2 4", "3 7 x", "3 7 12", "3 7 -2", "3 7 ²", "37 2", "3;7;2"])
def test_parse_says_what_is_expected(task: Arithmetic, text: str) -> None:
    with pytest.raises(UserError, match=r"problem: .* expected 3 operands from 0 to 9 for stage T0, such as '3 7 2'"):
        task.parse(0, text)


def test_render_and_parse_agree(task: Arithmetic) -> None:
    rendered = [task.render(task.parse(s, "8 0 9 1 5"[: 5 + 2 * s]), 0) for s in range(3)]
    assert rendered == [
        "a=8 b=0 c=9; compute a*b + c",
        "a=8 b=0 c=9 d=1; compute (a*b + c) - d",
        "a=8 b=0 c=9 d=1 e=5; compute (a*b + c) - d*e",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 11}, "horizon: 11 is not allowed; expected at least 12"),
        ({"gamma": 0.0}, "gamma: 0.0 is not allowed"),
        ({"gamma": 1.1}, "gamma: 1.1 is not allowed"),
        ({"reward": "potentail"}, "did you mean 'potential'"),
        ({"feedback": "screen"}, "feedback: unknown value 'screen'"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Arithmetic(**options)


# Rewards


def returns(task: Arithmetic, problems: ArithmeticProblems, program: torch.Tensor) -> torch.Tensor:
    """The discounted return of each row: float64 [n]."""
    state, total = task.begin(problems), torch.zeros(len(problems), dtype=torch.float64)
    for t in range(program.shape[1]):
        step = task.step(state, program[:, t])
        state, total = step.state, total + task.gamma**t * step.reward.double()
    assert bool(state.done.all())
    return total


def test_milestones_of_the_oracle(task: Arithmetic) -> None:
    shaped = Arithmetic(reward="milestone")
    stage = torch.arange(600) % 3
    problems = shaped.sample(stage, torch.Generator().manual_seed(0))
    total = returns(shaped, problems, shaped.oracle(problems))
    assert total.tolist() == pytest.approx((1 + 0.1 * (stage + 1)).tolist(), abs=1e-6)


def test_a_milestone_is_paid_once() -> None:
    shaped = Arithmetic(reward="milestone")
    program = shaped.spec.token_ids(words("3 MUL 7 MUL 1 STO 3 MUL 7 STO 7 MUL 3 EOS"))
    assert float(returns(shaped, shaped.parse(2, "3 7 2 4 5"), torch.tensor([program]))) == pytest.approx(0.1)


@given(st.integers(0, 2**32), st.sampled_from([1.0, 0.9, 0.5]))
def test_potentials_telescope(seed: int, gamma: float) -> None:
    """Over a finished episode Σ γᵗ (γΦ(s′) − Φ(s)) = −Φ(s₀), whatever was pressed (Ng et al., 1999)."""
    generator = torch.Generator().manual_seed(seed)
    plain, shaped = Arithmetic(), Arithmetic(reward="potential", gamma=gamma)
    plain.gamma = gamma
    problems = shaped.sample(torch.arange(24) % 3, generator)
    program = torch.randint(0, 18, (24, 11), generator=generator)
    follows = torch.rand(24, 11, generator=generator) < 0.6
    program = torch.where(follows, shaped.oracle(problems)[:, :11], program)
    program = torch.cat([program, torch.full((24, 1), KEYS["ANS"])], 1)
    shaping = returns(shaped, problems, program) - returns(plain, problems, program)
    start = shaped._potential(shaped.begin(problems)).double()
    assert torch.allclose(shaping, -start, atol=1e-5)
    assert bool((start >= -1).all())
    no_zero = (problems.operands[:, :3] > 1).all(1) & (problems.stage == 0)
    assert bool((start[no_zero] == -1).all())


def test_each_key_of_the_oracle_earns_its_share_of_the_potential() -> None:
    shaped = Arithmetic(reward="potential")
    problems = shaped.parse(2, "8 7 6 4 5")  # the target, 42, is nothing that one could type by chance on the way
    state, rewards = shaped.begin(problems), []
    for key in shaped.oracle(problems)[0]:
        step = shaped.step(state, key[None])
        state = step.state
        rewards.append(float(step.reward))
    assert rewards == pytest.approx([1 / 12] * 11 + [1 + 1 / 12], abs=1e-6)
