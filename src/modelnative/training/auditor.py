"""Audits of a `Trainer`'s own updates, before their first gradient step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelnative.policies.contract import forward_rollout
from modelnative.training.audit import (
    Audit,
    Readings,
    group_readings,
    log_prob_readings,
    mask_readings,
    problem_readings,
    verdict_readings,
)
from modelnative.training.rollout import Rollout
from modelnative.training.update_state import UpdateState

if TYPE_CHECKING:
    from modelnative.training.trainer import Trainer

FIRST, EVERY = (1, 2, 10, 30), 100  # updates that are audited, and then every so manyth
EPISODES, ALONE = 64, 2  # that are read, and that are read one by one


def audit_due(update: int) -> bool:
    """Whether update number `update`, the first being 1, is audited."""
    return update in FIRST or update % EVERY == 0


@torch.no_grad()
def audit_update(trainer: Trainer, state: UpdateState) -> Audit:
    """The readings of an update that was played but not yet learned from; nothing is changed and no number drawn."""
    rollout = state.rollout
    advantages = state.columns.advantage.view_as(rollout.reward).t()
    mask = rollout.loss_mask.t()
    readings = verdict_readings(advantages, mask, rollout.success)
    mine = trainer.group.shard(torch.arange(len(rollout.success), device=rollout.success.device))
    rows = mine[:: max(1, len(mine) // EPISODES)][:EPISODES]
    if trainer.algorithm.grouped:
        returns = (rollout.reward * rollout.loss_mask).sum(0)
        groups = torch.arange(len(returns), device=returns.device) // trainer.algorithm.num_generations
        readings |= problem_readings(advantages, mask, rollout.problems.key)
        readings |= group_readings(advantages, mask, groups, returns)
    if not len(rows):
        return Audit(readings)
    some = rollout.select(rows)
    readings |= mask_readings(some.loss_mask.t(), some.running.t())
    log_prob = _log_probs(trainer, some)
    own = some.loss_mask & ~some.explored
    if bool(own.any()):
        readings |= log_prob_readings(some.behavior_log_prob[own], log_prob[own])
    alone = [
        _log_probs(trainer, some.select(row))
        for row in torch.arange(min(ALONE, len(rows)), device=rows.device).split(1)
    ]
    running = some.running[:, : len(alone)]
    difference = (torch.cat(alone, 1) - log_prob[:, : len(alone)])[running].abs()
    readings["row_alone"] = (float(difference.max()), int(running.sum()))
    return Audit(readings | _replayed(trainer, some))


def _log_probs(trainer: Trainer, rollout: Rollout) -> Tensor:
    """The policy's log-probabilities of the actions, by a fresh forward pass: float [T, n]."""
    output = forward_rollout(trainer.policy, rollout.problems, rollout.token, rollout.feedback, None, None)
    log_probs = output.logits.float().log_softmax(-1)
    return log_probs.gather(-1, rollout.action.flatten()[:, None])[:, 0].view_as(rollout.action)


def _replayed(trainer: Trainer, rollout: Rollout) -> Readings:
    """How many actions, played again, show, pay or end something else than recorded."""
    task, different = trainer.task, 0
    state, success = task.begin(rollout.problems), torch.zeros_like(rollout.success)
    for t, action in enumerate(rollout.action):
        running = rollout.running[t]
        shown = (task.feedback(state) != rollout.feedback[t]).any(1)
        step = task.step(state, action)
        state, success = step.state, success | (step.success & running)
        goes_on = rollout.running[t + 1] if t + 1 < len(rollout.action) else step.done.logical_not()
        other = shown | (step.reward != rollout.reward[t]) | (step.done == goes_on)
        different += int((other & running).sum())
    different += int((success != rollout.success).sum())
    return {"replayed_differently": (float(different), int(rollout.running.sum()))}
