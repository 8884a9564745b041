"""reasoning-gym: answers are scored exactly. What needs the package is in `benchmarks/conformance.py`."""

from __future__ import annotations

import ast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import modelnative as mn
from modelnative.bridges.reasoning_gym import expression_of, solves
from modelnative.bridges.reasoning_gym_task import ReasoningGym, _trimmed

COUNTDOWN = mn.make("countdown")


@pytest.mark.parametrize(
    ("answer", "numbers", "target"),
    [
        ("3!*2", [3, 2], 12),
        ("2**3", [2, 3], 8),
        ("sqrt(4)*3", [4, 3], 6),
        ("Max(2,3)", [2, 3], 3),
        ("2*3", [2, 3, 1], 6),
        ("2*3*1*1", [2, 3, 1], 6),
        ("29", [29], 30),
        ("1/3*3*2", [1, 3, 3, 2], 2),
        ("(2-5)+9", [2, 5, 9], 6),
        ("9*9*9*9/9/9", [9] * 6, 81),
        ("1/0", [1, 0], 0),
        ("True*3", [3], 3),
        ("3.0*2", [3, 2], 6),
        ("", [1], 1),
        ("__import__('os')", [1], 1),
        ("(" * 400 + "1" + ")" * 400, [1], 1),
        ("6 = 2*3", [2, 3], 6),
        ("+6", [6], 6),
    ],
)
def test_what_is_no_answer(answer: str, numbers: list[int], target: int) -> None:
    assert not solves(answer, numbers, target)


@given(seed=st.integers(0, 10**6))
def test_the_oracle_s_expression_solves_the_problem_and_no_other(seed: int) -> None:
    problems = COUNTDOWN.sample(torch.tensor([0, 1]), torch.Generator().manual_seed(seed), "all")
    for record in COUNTDOWN.records(problems, COUNTDOWN.begin(problems)):
        answer = expression_of(record["numbers"], record["solution"])
        assert solves(answer, record["numbers"], record["target"])
        assert not solves(answer, record["numbers"], record["target"] + 1)
        assert not solves(answer, [*record["numbers"], 1], record["target"])
        used = sorted(node.value for node in ast.walk(ast.parse(answer)) if isinstance(node, ast.Constant))
        assert used == record["numbers"]


@given(st.lists(st.text("ab?"), min_size=2, max_size=5), st.text("ab"), st.text("?b"))
def test_what_all_questions_have_in_common_is_left_out(middles: list[str], begin: str, end: str) -> None:
    texts = [begin + middle + end for middle in middles]
    first, rest, last = _trimmed(texts)
    assert [first + text + last for text in rest] == texts
    assert len(first) + len(last) >= (len(begin + end) if len(set(texts)) > 1 else 0)


def test_verdicts_of_a_scorer_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
    monkeypatch.setattr("modelnative.bridges.reasoning_gym_task.REMEMBERED", 8)
    task = ReasoningGym("gcd", size=20, min_numbers=2, max_numbers=2)
    task.has_scorer = True
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        state = task.begin(task.sample(torch.zeros(16, dtype=torch.int64), generator))
        for _ in range(task.width):
            action = torch.randint(task.start, (16,), generator=generator)
            state = task.step(state, action).state
        step = task.step(state, torch.full((16,), task.ans))
        assert step.done.all()
        right = (state.typed == state.answer).all(1)
        assert step.success.equal(right)
        assert 0 < len(task._scores) <= 8
