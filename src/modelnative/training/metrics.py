"""The numbers of one update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelnative.tasks.contract.task import Problems, program_length
from modelnative.training.loss import LossTerms
from modelnative.training.rollout import Plan, play
from modelnative.training.update_state import UpdateState

if TYPE_CHECKING:
    from modelnative.training.trainer import Trainer


@dataclass(frozen=True)
class Timing:
    """How long one update took; the only part of the metrics that is not reproducible.

    Attributes:
        seconds: of this update.
        steps_per_second: actions of running episodes over seconds.
        rollout_share, update_share: the parts of it spent playing and learning.
    """

    seconds: float
    steps_per_second: float
    rollout_share: float
    update_share: float


@dataclass(frozen=True)
class Metrics:
    """What one update did.

    Attributes:
        update: updates so far, this one included.
        episodes, steps: so far; a step is one action of a running episode, those of hints included.
        success: for each stage the smoothed success without hints, measured without exploration; None if unseen.
        greedy: for each stage the greedy success on 256 training problems; None but every `evaluate_every` updates.
        stages: for each stage where the curriculum stands.
        mean_return: mean sum of rewards of the episodes.
        entropy: mean over the tokens in the loss, in nats.
        approximate_kl: mean of the k3 estimator between behavior and new policy, in nats.
        clip_fraction: share of the tokens in the loss whose ratio was clipped.
        explained_variance: of the critic's targets by its values; 0 without a critic.
        gradient_norm: before clipping, the mean of the steps.
        invalid: actions without effect in an episode.
        excess: actions of a successful episode without hint beyond those of the program that hints come from; None if
            there was none.
        policy_loss, value_loss, learning_rate: as they are.
        timing: how long it took.
    """

    update: int
    episodes: int
    steps: int
    success: list[float | None]
    greedy: list[float] | None
    stages: list[str]
    mean_return: float
    entropy: float
    approximate_kl: float
    clip_fraction: float
    explained_variance: float
    gradient_norm: float
    invalid: float
    excess: float | None
    policy_loss: float
    value_loss: float
    learning_rate: float
    timing: Timing


def measure(trainer: Trainer, state: UpdateState, end: float) -> Metrics:
    """The numbers of an update that ended at `end`, in seconds."""
    rollout, task = state.rollout, trainer.task
    _, *means = torch.stack(state.terms).mean(0).tolist()
    terms = dict(zip(LossTerms._fields[1:-2], means, strict=False))  # but for the sums
    seconds = end - state.started
    untrained = len(task.spec.stages) - len(trainer.stages)
    curriculum, n = trainer.curriculum, rollout.success.numel()
    success = [
        value if seen else None
        for value, seen in zip(curriculum.success.tolist(), curriculum.seen.tolist(), strict=True)
    ]
    due = trainer.updates % trainer.config.evaluate_every == 0
    return Metrics(
        update=trainer.updates,
        episodes=trainer.episodes,
        steps=trainer.steps,
        success=success + untrained * [None],
        greedy=stage_success(trainer, 256) if due else None,
        stages=curriculum.describe() + untrained * ["only tested"],
        mean_return=float(rollout.reward.sum() / n),
        explained_variance=_explained_variance(trainer, state),
        gradient_norm=float(torch.stack(state.norms).mean()),
        invalid=float(rollout.invalid.sum() / n),
        excess=_excess(trainer, state),
        **terms,
        learning_rate=trainer.optimizer.lr,
        timing=Timing(
            seconds=seconds,
            steps_per_second=state.steps / seconds,
            rollout_share=(state.learning - state.started) / seconds,
            update_share=(end - state.learning) / seconds,
        ),
    )


def _explained_variance(trainer: Trainer, state: UpdateState) -> float:
    """Of the critic's targets by its values."""
    if not trainer.config.loss.value_weight:
        return 0.0
    mask = state.rollout.loss_mask
    target = state.columns.target.view_as(mask)[mask]
    variance = float(target.var(correction=0))
    return 1 - float((target - state.rollout.value[mask]).var(correction=0)) / variance if variance > 0 else 0.0


def _excess(trainer: Trainer, state: UpdateState) -> float | None:
    """Actions of a successful episode without a hint beyond those of its problem's program."""
    rollout, task = state.rollout, trainer.task
    whole = rollout.success & rollout.loss_mask[0]
    program = trainer.curriculum.program(task, rollout.problems) if bool(whole.any()) else None
    if program is None:
        return None
    length = program_length(program, task.spec.end)
    whole &= length > 0  # else there is no program of the problem
    return float((state.length - length)[whole].float().mean()) if bool(whole.any()) else None


def stage_success(trainer: Trainer, episodes: int, sampled: bool = False) -> list[float]:
    """Success of each stage, greedy or sampled, in so many episodes drawn from the training problems.

    Sampled, it is of the stages that are trained on.
    """
    task, generator, group = trainer.task, trainer.generator, trainer.group
    stages = len(trainer.stages if sampled else task.spec.stages)
    stage = torch.arange(stages, device=trainer.config.device).repeat_interleave(episodes)
    problems: Problems = task.sample(stage, generator, trainer.config.split)
    plan = Plan.sampled(problems, task.spec.horizon, generator) if sampled else None

    def solved(rows: Tensor) -> Tensor:
        return play(trainer.policy, task, problems[rows], None if plan is None else plan[rows], final=False).success

    rows = group.shard(torch.arange(len(stage), device=stage.device))
    parts = trainer.pool.map(solved, rows.split(4096 if trainer.on_cpu else len(stage)))
    return group.gather(torch.cat(parts), len(stage)).view(stages, episodes).float().mean(1).tolist()
