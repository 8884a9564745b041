"""Audits of a `Trainer`'s own updates, before their first gradient step."""

from __future__ import annotations

from dataclasses import replace
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

EVERY = 10  # updates between audits, after those of updates 1 and 2
WHOLE, WHOLE_EVERY = (1, 2, 10), 100  # updates at which all is read, and between them after these
EPISODES, FEW = 64, 16  # that are read, and at the other audits
ALONE, PARTED = 2, 16  # that are read one by one, and whose gradient is taken


def audit_due(update: int) -> bool:
    """Whether update number `update`, the first being 1, is audited."""
    return update in WHOLE or update % EVERY == 0


def audited_whole(update: int) -> bool:
    """Whether all is read at that audit."""
    return update in WHOLE or update % WHOLE_EVERY == 0


@torch.no_grad()
def audit_update(trainer: Trainer, state: UpdateState, whole: bool | None = None) -> Audit:
    """The readings of an update that was played but not yet learned from; nothing is changed and no number drawn.

    Args:
        trainer: which plays and learns.
        state: of the update.
        whole: whether to read all; else the masks, the log-probabilities of a few episodes and the means of groups, a
            sixth of the work. None: as the number of the update says.
    """
    whole = audited_whole(trainer.updates + 1) if whole is None else whole
    rollout = state.rollout
    advantages = state.columns.advantage.view_as(rollout.reward).t()
    mask = rollout.loss_mask.t()
    readings = verdict_readings(advantages, mask, rollout.success) if whole else {}
    mine = trainer.group.shard(torch.arange(len(rollout.success), device=rollout.success.device))
    count = EPISODES if whole else FEW
    rows = mine[:: max(1, len(mine) // count)][:count]
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
    if whole:
        readings |= _alone(trainer, some, log_prob) | _unread(trainer, some, log_prob)
        readings |= _paid(trainer, some) | _parts(trainer, state, rows[:PARTED]) | _replayed(trainer, some)
    return Audit(readings)


def _log_probs(trainer: Trainer, rollout: Rollout) -> Tensor:
    """The policy's log-probabilities of the actions, by a fresh forward pass: float [T, n]."""
    output = forward_rollout(trainer.policy, rollout.problems, rollout.token, rollout.feedback, None, None)
    log_probs = output.logits.float().log_softmax(-1)
    return log_probs.gather(-1, rollout.action.flatten()[:, None])[:, 0].view_as(rollout.action)


def _alone(trainer: Trainer, rollout: Rollout, log_prob: Tensor) -> Readings:
    """How much the log-probabilities of an episode change if it is the only one."""
    rows = torch.arange(min(ALONE, log_prob.shape[1]), device=log_prob.device)
    alone = torch.cat([_log_probs(trainer, rollout.select(row)) for row in rows.split(1)], 1)
    running = rollout.running[:, : len(rows)]
    return {"row_alone": (float((alone - log_prob[:, : len(rows)])[running].abs().max()), int(running.sum()))}


def _unread(trainer: Trainer, rollout: Rollout, log_prob: Tensor) -> Readings:
    """How much the log-probabilities change if each episode is given another problem of its stage."""
    problems = rollout.problems
    order = problems.stage.sort(stable=True).indices
    other = torch.empty_like(order).index_copy(0, order, order.roll(1))
    differs = (problems.context != problems.context[other]).any(1) & (problems.stage == problems.stage[other])
    if not bool(differs.any()):
        return {}
    exchanged = _log_probs(trainer, replace(rollout, problems=problems[other]))
    seen = rollout.running & differs
    return {"problem_unread": (float((exchanged - log_prob)[seen].abs().max()), int(seen.sum()))}


def _paid(trainer: Trainer, rollout: Rollout) -> Readings:
    """What failed episodes are paid, as a share of what the oracle is paid for the same problems."""
    failed = ~rollout.success
    if not bool(failed.any()) or not trainer.task.has_oracle:
        return {}
    paid, count = rollout.reward.sum(0)[failed], int(failed.sum())
    if not bool((paid > 0).any()):
        return {"paid_without_success": (0.0, count)}
    problems = rollout.problems[failed]
    state, reward, success = trainer.task.begin(problems), torch.zeros_like(paid), torch.zeros_like(failed[failed])
    for action in trainer.task.oracle(problems).t():
        step = trainer.task.step(state, action)
        state, reward, success = step.state, reward + step.reward, success | step.success
    if not bool(success.any()) or float(reward[success].mean()) <= 0:
        return {}
    return {"paid_without_success": (float(paid[success].mean() / reward[success].mean()), int(success.sum()))}


def _parts(trainer: Trainer, state: UpdateState, rows: Tensor) -> Readings:
    """How far the gradient of some episodes, as the trainer accumulates it, is from the sum of two halves."""
    if trainer.group.size > 1:  # the parts are in other processes
        return {}
    with torch.enable_grad():
        whole = trainer.gradient(state, rows)[0]
        halves = [trainer.part_gradient(state, rows[offset::2], rows)[:-1] for offset in range(2)]
    scale = torch.stack(torch._foreach_norm(whole)).norm()
    if not float(scale) > 0:
        return {}
    difference = torch._foreach_sub(whole, torch._foreach_add(*halves))
    return {"gradient_of_parts": (float(torch.stack(torch._foreach_norm(difference)).norm() / scale), len(rows))}


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
