"""The published tutorial's recipe beside a mended one, by its own score and by the declared target."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from modelnative.policies.policy import Policy
from modelnative.tasks import make_task
from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.tasks.tutorial.task import PROGRAMS
from modelnative.training.config import TrainConfig, validate, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.rollout import play
from modelnative.training.trainer import Trainer

PROBLEMS = 4096  # played greedily at each stage
PUBLISHED_RESULT = "T0=1.061 T1=0.000 T2=0.176"
DECLARED = ("a*b + c", "(a*b + c) - d", "(a*b + c) - d*e")
# Sixty updates of one gradient step each, and nothing of ours: no exploration at chosen tokens, no self-imitation.
PUBLISHED: dict[str, Any] = {
    "curriculum": "tutorial",
    "updates": 60,
    "episodes": 128,
    "loss": {"epochs": 1, "minibatches": 1, "entropy_weight": 0.01, "imitation_weight": 0.0},
    "optimizer": {"learning_rate": 3e-4},
    "curricula": {"explore": 0.0},
}
# The best of all programs of at most six tokens, by the published score; those by declared success are the task's
# `PROGRAMS`. A test searches all of them.
BY_SCORE = ("MUL ANS", "MUL ADD ANS", "MUL ADD SUB ANS")


@dataclass(frozen=True)
class Version:
    """One recipe, trained: for each stage the mean published score and the success by the declared target."""

    name: str
    updates: int
    episodes: int
    learning_rate: float
    entropy_weight: float
    seconds: float
    score: tuple[float, ...]
    success: tuple[float, ...]


@dataclass(frozen=True)
class FixedProgram:
    """A program that reads nothing, on all problems of a stage."""

    program: str
    score: float
    success: float


@dataclass(frozen=True)
class Comparison:
    """What `modelnative tutorial` found."""

    stages: tuple[str, ...]
    problems: int
    seed: int
    versions: tuple[Version, ...]
    by_score: tuple[FixedProgram, ...]
    by_success: tuple[FixedProgram, ...]


def compare(seed: int = 0, updates: int = 100) -> Comparison:
    """Train both recipes on task `tutorial`, with the same network, and value them and the best fixed programs.

    Args:
        seed: of both trainings.
        updates: of the mended recipe.

    Raises:
        UserError: `seed` or `updates` is not allowed.
    """
    task = make_task("tutorial")
    mended: TrainConfig = recipe("tutorial", "tutorial-gru", "a2c", "uniform")
    mended = validate(with_fields(mended, {"seed": seed, "updates": updates}))
    published: TrainConfig = with_fields(mended, PUBLISHED)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the network is so small that a second thread would only wait
    try:
        versions = (_train(task, published, "published recipe"), _train(task, mended, "mended recipe"))
    finally:
        torch.set_num_threads(threads)
    return Comparison(
        stages=task.spec.stages,
        problems=PROBLEMS,
        seed=seed,
        versions=versions,
        by_score=tuple(fixed(task, s, program) for s, program in enumerate(BY_SCORE)),
        by_success=tuple(fixed(task, s, program) for s, program in enumerate(PROGRAMS)),
    )


def fixed(task: AnyTask, stage: int, program: str) -> FixedProgram:
    """Play a program of token names on every problem of a stage."""
    score = success = total = 0.0
    problems: Problems
    for problems in task.enumerate(stage):
        state = task.begin(problems)
        for token in task.spec.token_ids(program.split()):
            step = task.step(state, torch.full_like(problems.stage, token))
            state = step.state
            score += float(step.reward.double().sum())
            success += float(step.success.sum())
        total += len(problems)
    return FixedProgram(program, score / total, success / total)


def _train(task: AnyTask, config: TrainConfig, name: str) -> Version:
    start = time.perf_counter()
    trainer = Trainer(task, config)
    for _ in trainer:
        pass
    seconds = time.perf_counter() - start
    score, success = measure(trainer.policy, task)
    return Version(
        name=name,
        updates=config.updates,
        episodes=config.episodes,
        learning_rate=config.optimizer.learning_rate,
        entropy_weight=config.loss.entropy_weight,
        seconds=seconds,
        score=score,
        success=success,
    )


def measure(policy: Policy, task: AnyTask) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """For each stage the mean published score and the success, greedily, on the same `PROBLEMS` problems every time."""
    stages = len(task.spec.stages)
    stage = torch.arange(stages).repeat_interleave(PROBLEMS)
    rollout = play(policy, task, task.sample(stage, torch.Generator().manual_seed(0), "all"))
    score = rollout.reward.double().sum(0).view(stages, PROBLEMS).mean(1)
    success = rollout.success.double().view(stages, PROBLEMS).mean(1)
    return tuple(score.tolist()), tuple(success.tolist())
