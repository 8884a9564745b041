from __future__ import annotations

import gzip
import hashlib
import json
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.arithmetic.problems import ADD, ANS, EOS, MUL, RCL, STO, SUB, VOCABULARY, ArithmeticProblems
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.contract.task import program_length
from modelnative.tasks.tutorial.task import PROGRAMS, READ, Tutorial, TutorialState, published_score

FIXTURE = Path(__file__).parent / "data" / "tutorial_env.jsonl.gz"


def press(task: Tutorial, state: TutorialState, keys: str) -> TutorialState:
    for token in task.spec.token_ids(keys.split()):
        state = task.step(state, torch.full((len(state),), token)).state
    return state


def every_problem(task: Tutorial, stage: int) -> ArithmeticProblems:
    return ArithmeticProblems.cat(list(task.enumerate(stage)))


def test_the_published_world_on_12_000_recorded_answers() -> None:
    rows = [json.loads(line) for line in gzip.decompress(FIXTURE.read_bytes()).decode().splitlines()]
    assert len(rows) == 12_000
    task = Tutorial(horizon=READ)
    stage = torch.tensor([row["stage"] for row in rows])
    number = torch.tensor([row["operands"] for row in rows]) @ 10 ** torch.arange(4, -1, -1)
    state = task.begin(task.problems(stage, number))
    length = torch.tensor([len(row["actions"]) for row in rows])
    actions = torch.tensor([(row["actions"] + [EOS] * READ)[:READ] for row in rows])
    reward, paid = torch.zeros(len(rows), dtype=torch.float64), torch.zeros(len(rows))
    steps = torch.zeros(len(rows), dtype=torch.int64)
    for t in range(task.spec.horizon):
        steps += ~state.done & (t < length)
        ends = ~state.done & (actions[:, t] == ANS)
        step = task.step(state, actions[:, t])
        state, paid = step.state, paid + step.reward
        reward += torch.where(ends, published_score(state), 0.0)
    assert steps.tolist() == [row["steps"] for row in rows]
    assert reward.tolist() == pytest.approx([row["reward"] for row in rows], rel=0, abs=1e-9)
    assert torch.equal(paid, reward.float())


def test_contract() -> None:
    check_task(Tutorial())
    check_task(Tutorial(horizon=READ), limit=1_000)


@pytest.mark.parametrize("stage", [0, 1])
def test_the_oracle_reaches_the_declared_target(stage: int) -> None:
    task = Tutorial()
    problems = every_problem(task, stage)
    a, b, c, d, _ = problems.operands.unbind(1)
    state = task.begin(problems)
    program = task.oracle(problems)
    for t in range(int(program_length(program, EOS).max())):
        step = task.step(state, program[:, t])
        state = step.state
    assert bool(step.success.all())
    assert torch.equal(state.last, a * b + c - stage * d)
    # What the published scorer thinks of the right answer: it pays the target only where the two coincide.
    assert published_score(state).mean().item() == pytest.approx([0.205, 0.265][stage], abs=1e-9)


def reachable(task: Tutorial, stage: int, presses: int) -> list[tuple[float, str, float]]:
    """By exact search, for 0, 1, 2 … presses before ANS: the best fixed program's share of a stage, the first such
    program, and the share that any program reaches.

    Operands with the same product a·b fare alike, so that one of them stands for all, with their number as its
    weight. Programs that lead to the same registers everywhere are tried once.
    """
    problems = every_problem(task, stage)
    _, kind = problems.operands[:, 0].mul(problems.operands[:, 1]).unique(return_inverse=True)
    group = kind * 1000 + problems.operands[:, 2:] @ torch.tensor([100, 10, 1])
    weight = group.bincount().double() / len(problems)
    first = torch.zeros(len(weight), dtype=torch.int64).scatter(0, group, torch.arange(len(problems)))
    begin = task.begin(problems[first])
    layer = {b"": ("", begin)}
    seen, found = set(), []
    best, best_program, union = -1.0, "", torch.zeros(len(begin), dtype=torch.bool)
    for k in range(presses + 1):
        for program, state in layer.values():
            success = task.step(state, torch.full((len(begin),), ANS)).success
            union |= success
            share = round(weight[success].sum().item(), 9)
            if share > best:
                best, best_program = share, f"{program}ANS"
        found.append((best, best_program, round(weight[union].sum().item(), 9)))
        following = {}
        for (program, state), token in product(layer.values() if k < presses else (), (MUL, ADD, SUB, STO, RCL)):
            step = task.step(state, torch.full((len(begin),), token))
            after = step.state
            registers = torch.stack([after.last, after.has_last.long(), after.has_memory.long()])
            mark = hashlib.sha256(registers.to(torch.int32).numpy()).digest()
            if mark not in seen and not bool(step.invalid.all()):
                seen.add(mark)
                following[mark] = (f"{program}{VOCABULARY[token]} ", after)
        layer = following
    return found


@pytest.mark.parametrize(
    ("stage", "any_program"),
    [(0, [0.0, 0.1, 1.0]), (1, [0.0, 0.1, 0.29, 1.0]), (2, [0.0, 0.042, 0.25273, 0.38994, 0.56779, 0.74181])],
)
def test_the_oracle_gives_the_shortest_best_fixed_programs(stage: int, any_program: list[float]) -> None:
    """And the declared T2 is out of reach: of all problems, 27.1% for a fixed program and 74.181% for any."""
    found = reachable(Tutorial(), stage, len(any_program) - 1)
    assert [union for _, _, union in found] == any_program
    best, program, _ = found[-1]
    assert (best, program) == ([1.0, 1.0, 0.271][stage], PROGRAMS[stage])
    assert all(shorter < best for shorter, _, _ in found[:-1])


@pytest.mark.slow
def test_the_seventh_token_does_not_bring_t2_into_reach() -> None:
    assert reachable(Tutorial(horizon=READ), 2, 6)[-1] == (0.271, PROGRAMS[2], 0.83262)


def test_the_published_scorer_prefers_programs_one_step_short() -> None:
    task = Tutorial()
    for stage, keys, mean in ((0, "MUL ANS", 1.06), (1, "MUL ADD ANS", 1.12), (2, "MUL ADD SUB ANS", 1.0370296)):
        problems = every_problem(task, stage)
        state = press(task, task.begin(problems), keys)
        assert published_score(state).mean().item() == pytest.approx(mean, abs=1e-9)
        assert (state.last == problems.target).double().mean().item() < 0.2


@given(
    st.integers(0, 2),
    st.lists(st.integers(0, 9), min_size=5, max_size=5),
    st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=READ),
)
def test_only_ans_ends_and_pays(stage: int, operands: list[int], keys: list[str]) -> None:
    task = Tutorial()
    state = task.begin(task.parse(stage, " ".join(map(str, operands))))
    for t, key in enumerate(keys):
        step = task.step(state, torch.tensor([VOCABULARY.index(key)]))
        answers = key == "ANS" and "ANS" not in keys[:t]
        assert bool(step.done) == ("ANS" in keys[: t + 1])
        if not answers:
            assert float(step.reward) == 0.0
            assert not bool(step.success)
            assert float(published_score(step.state)) == 0.0 or "ANS" in keys[:t]
        else:
            a, b, c, d, e = operands
            declared = [a * b + c, a * b + c - d, a * b + c - d * e][stage]
            record = task.records(state.problem, step.state)[0]
            assert bool(step.success) == (record["answer"] == declared == record["target"])
            assert 0 <= float(step.reward) <= 1.36 + 1e-6
        state = step.state


@pytest.mark.parametrize(
    ("stage", "keys", "last", "invalid"),
    [
        # a=3 b=7 c=2 d=4 e=5
        (0, "MUL", "21", False),
        (0, "MUL MUL", "21", True),
        (0, "MUL ADD SUB", "23", True),
        (1, "MUL MUL", "84", False),
        (1, "MUL SUB", "17", False),
        (1, "MUL STO SUB", "17", False),
        (2, "MUL SUB", "17", False),
        (2, "MUL STO SUB", "16", False),
        (1, "ADD", "", True),
        (2, "SUB", "", True),
        (0, "STO RCL", "0", False),
        (1, "STO RCL", "0", False),
        (2, "STO RCL", "20", False),
        (2, "RCL", "", True),
        (1, "MUL STO RCL", "21", True),
        (2, "MUL STO RCL", "20", False),
        (2, "STO STO", "", True),
        (0, "STO RCL MUL", "0", True),
        (1, "STO RCL MUL", "0", False),
        (2, "MUL EOS", "21", True),
        (2, "MUL 3", "21", True),
        (2, "MUL CTX", "21", True),
    ],
)
def test_the_tools(stage: int, keys: str, last: str, invalid: bool) -> None:
    task = Tutorial()
    *before, key = keys.split()
    state = press(task, task.begin(task.parse(stage, "3 7 2 4 5")), " ".join(before))
    step = task.step(state, torch.tensor([VOCABULARY.index(key)]))
    registers = task.registers(step.state, 0)
    assert registers == {"last": last, "memory": "set" if "STO" in keys else "", "display": last}
    assert step.invalid.tolist() == [invalid]
    assert not bool(step.done)


def test_all_operands_are_shown_at_every_stage() -> None:
    task = Tutorial()
    for stage in range(3):
        problems = task.parse(stage, "3 7 2 4 5")
        assert problems.context.tolist() == [[3, 7, 2, 4, 5, VOCABULARY.index("CTX")]]
        assert task.count(stage) == 100_000
        assert task.render(problems, 0).startswith("a=3 b=7 c=2 d=4 e=5; compute ")
    assert task.spec.feedback_width == 0
    assert task.spec.horizon == 6


def test_the_same_operands_are_in_the_same_split_only_by_stage() -> None:
    """A stage is part of the key: another target is another problem."""
    task = Tutorial()
    keys: list[Tensor] = [every_problem(task, stage).key for stage in range(3)]
    assert len(torch.cat(keys).unique()) == 300_000


@pytest.mark.parametrize("horizon", [5, 8])
def test_horizon(horizon: int) -> None:
    with pytest.raises(UserError, match=f"horizon: {horizon} is not allowed; expected 6 or 7"):
        Tutorial(horizon=horizon)


def test_parse_wants_all_five() -> None:
    with pytest.raises(UserError, match="expected 5 operands from 0 to 9 for stage T0"):
        Tutorial().parse(0, "3 7 2")


def test_the_score_of_every_hit() -> None:
    """Each term of the published formula, on operands where no two of the targets coincide."""
    task = Tutorial()
    g = {"g0": 21, "g1": 23, "g2": 19, "g3": 20, "g4": 3, "none": 1000}
    expected = {
        0: {"g0": 1 + 0.05, "g1": 0.1, "g2": 0, "g3": 0, "g4": 0, "none": 0},
        1: {"g0": 0.05, "g1": 1 + 0.1, "g2": 0.15, "g3": 0, "g4": 0, "none": 0},
        2: {"g0": 0.04, "g1": 0.08, "g2": 1, "g3": 0.12, "g4": 0.12, "none": 0},
    }
    for stage, (name, value) in product(range(3), g.items()):
        problems = task.parse(stage, "3 7 2 4 5")
        yes, no = torch.tensor([True]), torch.tensor([False])
        state = TutorialState(yes, problems, torch.tensor([value]), yes, no)
        assert float(published_score(state)) == pytest.approx(expected[stage][name], abs=1e-12)
        unfinished = TutorialState(no, problems, torch.tensor([value]), yes, no)
        assert float(published_score(unfinished)) == 0.0
