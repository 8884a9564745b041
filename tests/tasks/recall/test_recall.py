from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelnative.errors import UserError
from modelnative.tasks import make_task
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.contract.task import in_split, program_length
from modelnative.tasks.recall.task import NAMES, Recall, RecallProblems

WORD = 1 << 64


def splitmix(number: int) -> int:
    """SplitMix64's finaliser in plain Python: 64 bits, not signed."""
    z = number * 0x9E3779B97F4A7C15 % WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB % WORD
    return z ^ z >> 31


@dataclass
class Reference:
    """One episode in plain Python, a key at a time."""

    cue: str
    seed: int
    length: int
    symbols: int
    waited: int = 0
    typed: str = ""
    done: bool = False
    success: bool = False

    def distractor(self, t: int) -> str:
        hashed = splitmix(1024 * self.seed + t)
        signed = hashed - WORD if hashed >= WORD // 2 else hashed
        number = signed % self.symbols ** len(self.cue)
        text = ""
        for _ in self.cue:
            text = NAMES[number % self.symbols] + text
            number //= self.symbols
        return text

    @property
    def display(self) -> str:
        if self.waited > self.length:
            return "GO"
        return self.distractor(self.waited) if self.waited else self.cue

    def press(self, key: str) -> None:
        self.success = False
        if self.done:
            return
        if self.waited <= self.length and key == "WAIT":
            self.waited += 1
        elif self.waited > self.length and len(key) == 1:
            self.typed += key
            self.done = len(self.typed) == len(self.cue)
            self.success = self.typed == self.cue
        else:
            self.done = True

    @property
    def answer(self) -> str | None:
        return self.typed if len(self.typed) == len(self.cue) else None


@st.composite
def episodes(draw: st.DrawFn) -> tuple[Recall, list[tuple[int, str, int, list[str]]]]:
    task = Recall(
        longest=draw(st.sampled_from([1, 2, 3, 7, 12])),
        symbols=draw(st.sampled_from([2, 3, 8, 10, 36])),
        width=draw(st.integers(1, 3)),
    )
    alphabet = st.sampled_from(NAMES[: task.symbols])
    anything = st.sampled_from(task.spec.vocabulary)
    batch = []
    for _ in range(draw(st.integers(1, 4))):
        stage = draw(st.integers(0, len(task.lengths) - 1))
        cue = "".join(draw(st.lists(alphabet, min_size=task.width, max_size=task.width)))
        answer = draw(st.just(list(cue)) | st.lists(alphabet, min_size=1, max_size=4))
        program = ["WAIT"] * draw(st.sampled_from([task.lengths[stage] + 1] * 4 + [2])) + answer
        for _ in range(draw(st.integers(0, 1))):
            program[draw(st.integers(0, len(program) - 1))] = draw(anything)
        batch.append((stage, cue, draw(st.integers(0, 2**32 - 1)), program + draw(st.lists(anything, max_size=3))))
    return task, batch


@given(episodes())
def test_keys_against_the_reference(given: tuple[Recall, list[tuple[int, str, int, list[str]]]]) -> None:
    task, batch = given
    problems = RecallProblems.cat([task.parse(stage, f"{cue} {seed}") for stage, cue, seed, _ in batch])
    lengths = [task.lengths[stage] for stage, *_ in batch]
    seeds = problems.seed.tolist()
    references = [
        Reference(cue, seed, length, task.symbols)
        for (_, cue, _, _), seed, length in zip(batch, seeds, lengths, strict=True)
    ]
    for (_, cue, seed, _), reference in zip(batch, references, strict=True):
        typed = Reference(cue, seed, reference.length, task.symbols)  # another seed may show the same, no other may
        assert [typed.distractor(t + 1) for t in range(typed.length)] == [
            reference.distractor(t + 1) for t in range(typed.length)
        ]
        assert reference.seed <= seed
    state = task.begin(problems)
    shown = task.feedback(state)
    for t in range(max(len(program) for *_, program in batch) + 1):
        for i, reference in enumerate(references):
            text = [task.spec.vocabulary[token] for token in shown[i]]
            expected = ["GO"] + ["EOS"] * (task.width - 1) if reference.display == "GO" else list(reference.display)
            assert text == expected
            registers = task.registers(state, i)
            assert registers["display"].replace(" ", "") == reference.display
            assert registers["typed"] == reference.typed
            assert registers["to wait"] == str(reference.length + 1 - reference.waited)
        keys = [program[t] if t < len(program) else "WAIT" for *_, program in batch]
        step = task.step(state, torch.tensor(task.spec.token_ids(keys)))
        state, shown = step.state, step.feedback
        for key, reference in zip(keys, references, strict=True):
            reference.press(key)
        assert step.done.tolist() == [r.done for r in references]
        assert step.success.tolist() == [r.success for r in references]
        assert step.reward.tolist() == [float(r.success) for r in references]
        assert not bool(step.invalid.any())
    for record, r in zip(task.records(problems, state), references, strict=True):
        assert record == {
            "problem": f"{r.cue} {r.seed}",
            "cue": r.cue,
            "seed": r.seed,
            "distractors": [r.distractor(t) for t in range(1, r.length + 1)],
            "answer": r.answer,
            "target": r.cue,
        }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"longest": 1},
        {"longest": 50, "symbols": 3},
        {"longest": 2, "symbols": 2, "width": 16},
        {"longest": 3, "symbols": 36, "width": 3},
    ],
)
def test_contract(options: dict[str, int]) -> None:
    check_task(Recall(**options), samples=128)


def test_a_thousand_distractors() -> None:
    task = Recall(longest=1000)
    assert task.spec.stages == ("L1", "L3", "L10", "L30", "L100", "L300", "L1000")
    assert task.spec.horizon == 1002
    problems = task.sample(torch.arange(140) % 7, torch.Generator().manual_seed(0))
    program = task.oracle(problems)
    assert torch.equal(program_length(program, task.eos), torch.tensor(task.lengths).repeat(20) + 2)
    state = task.begin(problems)
    right = torch.zeros(140, dtype=torch.bool)
    for action in program.unbind(1):
        step = task.step(state, action)
        state, right = step.state, right | step.success
    assert bool(right.all())


@pytest.mark.parametrize("options", [{"symbols": 2}, {"symbols": 2, "width": 2}, {"longest": 2, "symbols": 3}])
def test_the_oracles_program_is_the_only_one_that_succeeds(options: dict[str, int]) -> None:
    task = Recall(**{"longest": 1, **options})
    for text in itertools.islice(map("".join, itertools.product(NAMES[: task.symbols], repeat=task.width)), 4):
        problem = task.parse(len(task.lengths) - 1, text)
        programs = torch.cartesian_prod(*[torch.arange(len(task.spec.vocabulary))] * task.spec.horizon)
        state = task.begin(problem)[torch.zeros(len(programs), dtype=torch.int64)]
        right = torch.zeros(len(programs), dtype=torch.bool)
        for action in programs.unbind(1):
            step = task.step(state, action)
            state, right = step.state, right | step.success
        assert torch.equal(programs[right], task.oracle(problem))


def test_listed_stages_show_everything_once() -> None:
    task = Recall(longest=10, symbols=3)
    assert [task.count(0), task.count(1)] == [9, 81]
    with pytest.raises(UserError, match=r"'L10' has .* problems, too many to list"):
        task.count(2)
    for stage, length in ((0, 1), (1, 3)):
        problems = RecallProblems.cat(list(task.enumerate(stage, chunk=7)))
        records = task.records(problems, task.begin(problems))
        assert [(r["distractors"], r["cue"]) for r in records] == [
            (list(shown[:-1]), shown[-1]) for shown in itertools.product("012", repeat=length + 1)
        ]
        first: dict[tuple[str, ...], int] = {}
        for seed in range(2000):
            reference = Reference("0", seed, length, 3)
            first.setdefault(tuple(reference.distractor(t) for t in range(1, length + 1)), seed)
        assert all(r["seed"] == first[tuple(r["distractors"])] for r in records)


def test_samples_are_uniform_in_their_split() -> None:
    task, n = Recall(), 100_000
    for split in ("all", "train", "heldout"):
        for stage in (0, 1):
            problems = task.sample(torch.full((n,), stage), torch.Generator().manual_seed(stage), split)
            counts = torch.unique(problems.key, return_counts=True)[1].double()
            size = task.count(stage, split)
            assert len(counts) == size
            chi = float(((counts - n / size) ** 2 / (n / size)).sum())
            assert abs(chi - (size - 1)) < 5 * (2 * (size - 1)) ** 0.5
        problems = task.sample(torch.full((n,), 4), torch.Generator().manual_seed(0), split)
        assert bool(in_split(problems.key, split).all())
        assert problems.cue.bincount(minlength=8).double().sub(n / 8).abs().max() < 5 * (n / 8) ** 0.5
        assert float(problems.seed.double().mean() / 2**32) == pytest.approx(0.5, abs=0.01)
        assert len(problems.key.unique()) > 0.999 * n


def test_distractors_are_uniform_and_do_not_repeat_the_cue() -> None:
    task = Recall(symbols=5)
    n, stage = 4000, torch.full((4000,), 4)
    problems = task.sample(stage, torch.Generator().manual_seed(0))
    state, shown = task.begin(problems), []
    for _ in range(101):
        shown.append(task.feedback(state)[:, 0])
        state = task.step(state, torch.full((n,), task.wait)).state
    rows = torch.stack(shown)
    for left, right in ((rows[0], rows[1]), (rows[1], rows[2]), (rows[0], rows[100]), (rows[50], rows[99])):
        counts = (left * 5 + right).bincount(minlength=25).double()
        assert float(((counts - n / 25) ** 2 / (n / 25)).sum()) < 24 + 5 * 48**0.5


def test_a_problem_has_the_same_key_whatever_the_longest_stage_is() -> None:
    short, long = Recall(longest=30), Recall(longest=1000)
    for stage in range(4):
        assert torch.equal(short.parse(stage, "4 12345").key, long.parse(stage, "4 12345").key)


def test_no_constant_answer_is_frequent() -> None:
    task = Recall()
    for stage in (0, 1):
        for split in ("train", "heldout"):
            cues = torch.cat([problems.cue for problems in task.enumerate(stage, split)])
            assert float(cues.bincount().max() / len(cues)) < (0.3 if stage == 0 else 0.15)


def test_a_split_without_problems_is_named() -> None:
    asked = [(symbols, longest) for symbols in (2, 3, 4, 5) for longest in (1, 2, 3)]
    refused = []
    for symbols, longest in asked:
        task = Recall(longest=longest, symbols=symbols)
        for stage in range(len(task.lengths)):
            for split in ("train", "heldout"):
                stages = torch.full((3,), stage)
                if task.count(stage, split):
                    assert bool((task.sample(stages, torch.Generator(), split).stage == stage).all())
                    continue
                refused.append((symbols, longest))
                with pytest.raises(UserError, match=f"split: '{split}' has no problem of stage 'L"):
                    task.sample(stages, torch.Generator(), split)
    assert refused == [(2, 2)]  # 8 problems, all of them in the other split


def test_render_and_parse() -> None:
    task = Recall()
    assert task.render(task.parse(0, "3"), 0).startswith("the cue 3, 1 distractor: ")
    text = task.render(task.parse(4, "3 9"), 0)
    expected = " ".join(Reference("3", 9, 100, 8).distractor(t) for t in range(1, 13))
    assert text == f"the cue 3, 100 distractors: {expected} ..., GO; type the cue"
    assert Recall(width=2).parse(2, "70 4294967295").seed.tolist() == [2**32 - 1]


@pytest.mark.parametrize("text", ["", "8", "33", "x", "3 x", "3 -1", "3 4 5", "3 4294967296", "²", "3 ²"])
def test_parse_says_what_is_expected(text: str) -> None:
    with pytest.raises(UserError, match=r"problem: .* expected a cue, 1 of 01234567, .* such as '1 17'"):
        Recall().parse(0, text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"longest": 0}, "longest: 0 is not allowed; expected a length from 1 to 1000"),
        ({"longest": 1001}, "longest: 1001 is not allowed"),
        ({"symbols": 1}, "symbols: 1 is not allowed; expected a number from 2 to 36"),
        ({"symbols": 37}, "symbols: 37 is not allowed"),
        ({"width": 0}, "width: 0 is not allowed; expected a number from 1 to 5, with 8 symbols"),
        ({"width": 6}, "width: 6 is not allowed"),
        ({"longest": "100"}, "longest: '100' is not allowed; expected int"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_task("recall", **options)


def test_options_rebuild_the_task() -> None:
    task = make_task("recall", longest=50, symbols=4, width=3)
    assert task.options() == {"longest": 50, "symbols": 4, "width": 3}
    assert make_task("recall", **task.options()).spec == task.spec
