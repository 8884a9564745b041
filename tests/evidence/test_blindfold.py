"""Blind policies see nothing that identifies the problem."""

from __future__ import annotations

from typing import Any

import echoes
import pytest
import torch
from bare import Bare
from toolbox import TASK as TOOLS
from torch import Tensor

from modelnative.evidence.baselines import train_baseline
from modelnative.evidence.blindfold import BlindTask, feedback_reveals_problem
from modelnative.tasks import make_task
from modelnative.tasks.contract.task import AnyTask, Problems

N = 64
# Whether the feedback reveals the problem; otherwise the context does.
FAMILIES: list[tuple[str, dict[str, Any], bool]] = [
    ("arithmetic", {}, False),
    ("arithmetic", {"feedback": "none"}, False),
    ("countdown", {}, False),
    ("dictionary", {}, True),
    ("dictionary", {"store": True}, True),
    ("expressions", {}, False),
    ("hops", {}, False),
    ("hops", {"maps": 2, "feedback": "left"}, False),
    ("recall", {}, True),
    ("tutorial", {}, False),
]


def drawn(task: AnyTask, stage: int = 0, seed: int = 0) -> Problems:
    problems: Problems = task.sample(torch.full((N,), stage), torch.Generator().manual_seed(seed))
    return problems


def keys(task: AnyTask, seed: int = 7) -> Tensor:
    """The first problem's oracle program with some random keys, the same for all episodes: int64 [horizon]."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randint(len(task.spec.vocabulary), (task.spec.horizon,), generator=generator)
    program = task.oracle(drawn(task))[0]
    return torch.where(torch.rand(len(random), generator=generator) < 0.9, program, random)


@pytest.mark.parametrize(("name", "options", "shows"), FAMILIES)
def test_whether_the_feedback_reveals_the_problem(name: str, options: dict[str, Any], shows: bool) -> None:
    task = make_task(name, **options)
    assert [feedback_reveals_problem(task, drawn(task, stage)) for stage in range(len(task.spec.stages))] == [
        shows
    ] * len(task.spec.stages)


def test_whether_the_feedback_of_other_tasks_reveals_the_problem() -> None:
    tasks = (echoes.Echo(), echoes.Open(), TOOLS, echoes.Blank(), echoes.Shown(), echoes.Named())
    assert [feedback_reveals_problem(task, drawn(task)) for task in tasks] == [False, False, False, True, True, True]


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize(("name", "options", "shows"), FAMILIES)
def test_own_results_and_shown_feedback(name: str, options: dict[str, Any], shows: bool, other: bool) -> None:
    task = make_task(name, **options)
    stage = len(task.spec.stages) - 1
    own = drawn(task, stage)
    blind = BlindTask(task, other)
    problems = blind.hide(own, torch.Generator().manual_seed(3))
    seen = task.sample(own.stage, torch.Generator().manual_seed(3), "all") if other else own
    assert bool((problems.context == task.spec.end).all())
    assert torch.equal(blind.oracle(problems), task.oracle(own))
    state, alone, shown = blind.begin(problems), task.begin(own), task.begin(seen)
    assert torch.equal(blind.feedback(state), task.feedback(shown))
    for key in keys(task):
        action = key.expand(N)
        step, mine, theirs = blind.step(state, action), task.step(alone, action), task.step(shown, action)
        for field in ("reward", "done", "success", "invalid"):
            assert torch.equal(getattr(step, field), getattr(mine, field))
        assert torch.equal(step.feedback, theirs.feedback)
        assert torch.equal(step.feedback, blind.feedback(step.state))
        assert torch.equal(step.state.done, mine.done)
        state, alone, shown = step.state, mine.state, theirs.state


@pytest.mark.learning
@pytest.mark.parametrize("task", [echoes.Shown(), echoes.Named()], ids=lambda task: type(task).__name__)
def test_a_blind_policy_fails_where_the_feedback_reveals_the_problem(
    task: echoes.Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    (problems,) = task.enumerate(0)
    blind = train_baseline(task, 0, "blind", problems, 3.0)
    assert blind.tool_output == "shuffled"
    assert blind.successes < 30
    monkeypatch.setattr("modelnative.evidence.baselines.feedback_reveals_problem", lambda *_: False)
    assert train_baseline(task, 0, "blind", problems, 6.0).successes > 90, "a blank context alone is not enough"


def test_a_blind_task_has_an_oracle_if_its_task_has_one() -> None:
    assert BlindTask(echoes.Echo(), False).has_oracle
    assert not BlindTask(Bare(), False).has_oracle
