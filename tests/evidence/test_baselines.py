"""Trained baselines and their curriculum."""

from __future__ import annotations

import pytest
import toolbox
import torch
from echoes import Echo

from modelnative.evidence.baselines import RandomHints, TrainedBaseline, train_baseline
from modelnative.training.config import CurriculumConfig


def hints(lengths: list[int], stage: int) -> RandomHints:
    return RandomHints(torch.tensor(lengths), 12, CurriculumConfig(), stage)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_hints_of_every_length_at_one_stage(stage: int) -> None:
    draw = hints([6, 8, 12], stage).draw(4000, torch.Generator().manual_seed(0), 0.0)
    length = (6, 8, 12)[stage]
    assert bool((draw.stage == stage).all())
    whole = draw.own_tokens == 12 if length < 12 else draw.own_tokens >= 12
    assert 0.45 < float(whole.float().mean()) < 0.6
    assert set(draw.own_tokens.tolist()) == {*range(1, length + 1), 12}
    assert bool((draw.explore[draw.own_tokens < length] == 0).all())


def test_without_an_oracle_program_there_is_no_hint() -> None:
    draw = hints([6, 0], 1).draw(100, torch.Generator().manual_seed(0), 0.0)
    assert bool((draw.own_tokens == 12).all())


def test_failure_is_that_of_its_stage() -> None:
    curriculum = hints([6, 8, 12], 1)
    draw = curriculum.draw(100, torch.Generator().manual_seed(0), 0.0)
    curriculum.observe(draw, torch.ones(100, dtype=torch.bool))
    assert curriculum.failure == 0.0


@pytest.mark.parametrize("handicap", ["memoryless", "blind"])
def test_the_number_of_problems_played(handicap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Echo()
    (problems,) = task.enumerate(0)
    trained = train_baseline(task, 0, handicap, problems, 0.0)  # type: ignore[arg-type]
    assert isinstance(trained, TrainedBaseline)
    assert trained.problems == 100
    assert trained.updates in (1, 2)  # one of imitation, one of reinforcement unless that solved it
    assert trained.tool_output == ("real" if handicap == "blind" else "")
    assert 0 <= trained.successes <= 100
    monkeypatch.setattr("modelnative.evidence.baselines.MAX_PLAYED", 30)
    assert train_baseline(task, 0, handicap, problems, 0.01).problems == 30  # type: ignore[arg-type]


def test_a_blind_policy_sees_its_tools() -> None:
    problems = next(iter(toolbox.TASK.enumerate(0)))
    trained = train_baseline(toolbox.TASK, 0, "blind", problems, 0.5)
    assert (trained.problems, trained.tool_output) == (len(problems), "real")
