"""Trains the published tutorial's recipe and a corrected one, and measures both by score and by declared target."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from modelnative.native import kernel_threads
from modelnative.tasks import make_task
from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.tasks.tutorial.task import PROGRAMS
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.rollout import play
from modelnative.training.trainer import Trainer

PROBLEMS = 4096  # played greedily at each stage
PUBLISHED_RESULT = "T0=1.061 T1=0.000 T2=0.176"
DECLARED_TARGETS = ("a*b + c", "(a*b + c) - d", "(a*b + c) - d*e")
# The tutorial's network, with the learning rate that works for it.
CORRECTED: dict[str, Any] = {"policy": {"copy_head": False}, "optimizer": {"learning_rate": 3e-3}}
# Sixty updates of one gradient step each, without exploration of chosen tokens and without self-imitation.
PUBLISHED: dict[str, Any] = {
    "curriculum": "tutorial",
    "updates": 60,
    "episodes": 128,
    "loss": {"epochs": 1, "minibatches": 1, "entropy_weight": 0.01, "imitation_weight": 0.0},
    "optimizer": {"learning_rate": 3e-4},
    "curricula": {"explore": 0.0},
}
# The best of all programs of at most six tokens by the published score. The best by the declared target are
# `PROGRAMS` of the task. A test searches all of them.
BEST_BY_SCORE = ("MUL ANS", "MUL ADD ANS", "MUL ADD SUB ANS")


@dataclass(frozen=True)
class TrainedRecipe:
    """One recipe after training: the mean published score and the success rate of each stage."""

    name: str
    config: TrainConfig
    seconds: float
    score: tuple[float, ...]
    success: tuple[float, ...]


@dataclass(frozen=True)
class FixedProgram:
    """A program that reads nothing, played on all problems of a stage."""

    program: str
    score: float
    success: float


@dataclass(frozen=True)
class TutorialComparison:
    """The result of `modelnative tutorial`.

    Attributes:
        stages: their names.
        problems: played at each stage.
        seed: of both trainings.
        recipes: the published and the corrected recipe.
        by_score, by_success: for each stage the best fixed program by score, and by the declared target.
    """

    stages: tuple[str, ...]
    problems: int
    seed: int
    recipes: tuple[TrainedRecipe, ...]
    by_score: tuple[FixedProgram, ...]
    by_success: tuple[FixedProgram, ...]


def compare_tutorial(*, seed: int = 0, updates: int = 100) -> TutorialComparison:
    """Train the published tutorial's recipe and a corrected one; measure the published score and the success of both.

    Both are trained on task `tutorial` with the same network. The best fixed programs are measured, too.

    Args:
        seed: of both trainings.
        updates: of the corrected recipe.

    Raises:
        UserError: `seed` or `updates` is not allowed.
    """
    task = make_task("tutorial")
    usual = recipe("tutorial", algorithm="a2c", curriculum="uniform")
    corrected: TrainConfig = with_fields(usual, {**CORRECTED, "seed": seed, "updates": updates})
    published: TrainConfig = with_fields(corrected, PUBLISHED)
    with kernel_threads(1):  # the network is too small for a second thread
        trainers = {"published recipe": Trainer(task, published), "corrected recipe": Trainer(task, corrected)}
        recipes = tuple(_train(name, trainer) for name, trainer in trainers.items())
    return TutorialComparison(
        stages=task.spec.stages,
        problems=PROBLEMS,
        seed=seed,
        recipes=recipes,
        by_score=tuple(play_fixed(task, s, program) for s, program in enumerate(BEST_BY_SCORE)),
        by_success=tuple(play_fixed(task, s, program) for s, program in enumerate(PROGRAMS)),
    )


def play_fixed(task: AnyTask, stage: int, program: str) -> FixedProgram:
    """Play a program, given as token names, on every problem of a stage."""
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


def _train(name: str, trainer: Trainer) -> TrainedRecipe:
    """Train, then play `PROBLEMS` fixed problems of each stage greedily."""
    start = time.perf_counter()
    for _ in trainer:
        pass
    seconds = time.perf_counter() - start
    task, stages = trainer.task, len(trainer.task.spec.stages)
    stage = torch.arange(stages).repeat_interleave(PROBLEMS)
    rollout = play(trainer.policy, task, task.sample(stage, torch.Generator().manual_seed(0), "all"))
    score = rollout.reward.double().sum(0).view(stages, PROBLEMS).mean(1)
    success = rollout.success.double().view(stages, PROBLEMS).mean(1)
    return TrainedRecipe(name, trainer.config, seconds, tuple(score.tolist()), tuple(success.tolist()))
