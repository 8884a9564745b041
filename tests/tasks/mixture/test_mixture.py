"""A part of a mixture is the task that it is alone: problems, splits, episodes, verdicts and oracle."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import modelnative as mn
from modelnative.errors import UserError
from modelnative.tasks import TASKS, make_task
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.contract.task import in_split
from modelnative.tasks.mixture.task import Mixture
from modelnative.training.checkpoint import restore, state_of
from modelnative.training.trainer import Trainer

OPTIONS: dict[str, dict[str, Any]] = {
    "arithmetic": {},
    "recall": {"longest": 3},
    "hops": {"hops": 2},
    "countdown": {"numbers": 3},
    "dictionary": {"store": True},
    "expressions": {"feedback": "paper", "operators": 2},
}
PARTS = {name: make_task(name, **options) for name, options in OPTIONS.items()}
ALL = Mixture(PARTS)


def names(task: mn.Task, tokens: Tensor) -> list[list[str]]:
    """Rows of tokens by name, without the padding."""
    return [[task.spec.vocabulary[t] for t in row if t != task.spec.end] for row in tokens.tolist()]


def drawn(name: str, n: int, seed: int) -> tuple[Any, Any]:
    """The same problems, of a part alone and in the mixture."""
    part, generators = PARTS[name], [torch.Generator().manual_seed(seed) for _ in range(2)]
    stage = torch.arange(n) % len(part.spec.stages)
    first = ALL.spec.stage_index(f"{name}.{part.spec.stages[0]}")
    return part.sample(stage, generators[0]), ALL.sample(stage + first, generators[1])


@pytest.mark.parametrize("name", PARTS)
@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=5, deadline=None)
def test_an_episode_is_that_of_the_part_alone(name: str, seed: int, by_oracle: bool) -> None:
    part, n = PARTS[name], 40
    problems, mixed = drawn(name, n, seed)
    assert names(part, problems.context) == names(ALL, mixed.context)
    assert names(part, part.oracle(problems)) == names(ALL, ALL.oracle(mixed))
    state, whole = part.begin(problems), ALL.begin(mixed)
    assert names(part, part.feedback(state)) == names(ALL, ALL.feedback(whole))
    generator = torch.Generator().manual_seed(seed)
    for t in range(part.spec.horizon):
        action = torch.randint(len(part.spec.vocabulary), (n,), generator=generator)
        action = part.oracle(problems)[:, t] if by_oracle else action
        token = torch.tensor(
            [
                ALL.spec.end if a == part.spec.end else ALL.spec.vocabulary.index(part.spec.vocabulary[a])
                for a in action.tolist()
            ]
        )
        step, own = ALL.step(whole, token), part.step(state, action)
        for field in ("reward", "done", "success", "invalid"):
            assert torch.equal(getattr(step, field), getattr(own, field)), field
        assert names(ALL, step.feedback) == names(part, own.feedback)
        state, whole = own.state, step.state
    assert ALL.records(mixed, whole) == part.records(problems, state)
    assert ALL.registers(whole, 3) == part.registers(state, 3)
    assert ALL.render(mixed, 3) == part.render(problems, 3)


def test_a_key_of_another_part_has_no_effect() -> None:
    _, problems = drawn("recall", 20, 0)
    state = ALL.begin(problems)
    step = ALL.step(state, torch.full((20,), ALL.spec.vocabulary.index("MUL")))
    assert bool(step.invalid.all())
    assert not bool((step.done | step.success | (step.reward != 0)).any())
    assert all(torch.equal(a, b) for a, b in zip(step.state.tensors(), state.tensors(), strict=True))


def test_the_split_of_a_problem_is_that_of_the_part_and_no_key_is_there_twice() -> None:
    keys = []
    for name, part in PARTS.items():
        problems, mixed = drawn(name, 500, 1)
        assert torch.equal(in_split(mixed.key, "heldout"), in_split(problems.key, "heldout"))
        assert len(mixed.key.unique()) == len(problems.key.unique())
        keys.append(mixed.key.unique())
        stage = ALL.spec.stage_index(f"{name}.{part.spec.stages[0]}")
        if name in ("arithmetic", "recall"):
            assert ALL.count(stage, "heldout") == part.count(0, "heldout")
            own = torch.cat([p.key for p in part.enumerate(0, "heldout")])
            assert len(torch.cat([p.key for p in ALL.enumerate(stage, "heldout")])) == len(own)
    assert len(torch.cat(keys).unique()) == sum(map(len, keys))


def test_a_mixture_fulfills_the_contract() -> None:
    check_task(make_task("recall+hops", **{"recall.longest": 1, "hops.hops": 1, "hops.size": 4}))


def test_a_row_depends_on_no_other_part() -> None:
    """Rows of all parts, shuffled: the same as one part after the other."""
    stage = torch.arange(len(ALL.spec.stages)).repeat(4)
    problems = ALL.sample(stage, torch.Generator().manual_seed(2))
    order = torch.randperm(len(stage), generator=torch.Generator().manual_seed(3))
    program = ALL.oracle(problems)
    first, second = ALL.begin(problems), ALL.begin(problems[order])
    for t in range(ALL.spec.horizon):
        first, second = ALL.step(first, program[:, t]).state, ALL.step(second, program[order, t]).state
    assert all(torch.equal(a[order], b) for a, b in zip(first.tensors(), second.tensors(), strict=True))


def test_by_name_with_options() -> None:
    task = make_task("arithmetic+recall", **{"recall.longest": 1})
    assert task.spec.stages == ("arithmetic.T0", "arithmetic.T1", "arithmetic.T2", "recall.L1")
    assert make_task(task.spec.name, **task.options()).spec == task.spec
    assert mn.recipe("arithmetic+recall").task == "arithmetic+recall"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("arithmetic+arithmetic", {}, "task: 'arithmetic+arithmetic' is not allowed; expected different tasks"),
        ("arithmetic+recal", {}, "task: unknown value 'recal'; did you mean 'recall'"),
        ("arithmetic+", {}, "task: unknown value ''"),
        ("arithmetic+recall", {"longest": 3}, "options: 'longest' is not allowed; expected PART.OPTION"),
        ("arithmetic+recall", {"recal.longest": 3}, "options: unknown value 'recal'; did you mean 'recall'"),
        ("arithmetic+recall", {"recall.longest": 0}, "longest: 0 is not allowed"),
        ("arithmetic+recall", {"recall.long": 3}, "option of task recall: unknown value 'long'"),
    ],
)
def test_bad_names_are_one_clear_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_task(name, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_that_cannot_be_mixed() -> None:
    task = PARTS["recall"]
    with pytest.raises(UserError, match="at least two tasks"):
        Mixture({"recall": task})
    with pytest.raises(UserError, match="identifiers"):
        Mixture({"recall": task, "a b": task})
    other = make_task("hops", hops=1)
    end = dataclasses.replace(other.spec, end=other.spec.vocabulary.index("GAP"))
    other.spec = end
    with pytest.raises(UserError, match="without the token 'EOS'"):
        Mixture({"recall": task, "hops": other})


def test_practice_problems_of_a_mixture_are_in_its_checkpoint() -> None:
    """Problems that contain problems: once a checkpoint of them could not be written."""
    task = make_task("arithmetic+recall", **{"recall.longest": 1})
    config = mn.with_fields(mn.recipe(), {"task": task.spec.name, "options": task.options(), "episodes": 64})
    trainers = [Trainer(task, config) for _ in range(2)]
    trainers[0].practice = task.sample(torch.tensor([0, 3, 2]), torch.Generator().manual_seed(0))
    tensors, counters = state_of(trainers[0])
    restore(trainers[1], tensors, counters)
    assert trainers[1].practice is not None
    assert type(trainers[1].practice) is type(trainers[0].practice)
    pairs = zip(trainers[0].practice.tensors(), trainers[1].practice.tensors(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(ValueError, match="practice"):
        restore(trainers[1], {k: v for k, v in tensors.items() if k != "practice.0"}, counters)


def test_every_task_can_be_mixed() -> None:
    task = make_task("+".join(TASKS))
    problems = task.sample(torch.arange(len(task.spec.stages)), torch.Generator().manual_seed(0))
    assert len(task.begin(problems)) == len(task.spec.stages)
