"""Audits of a `Trainer`'s own updates, before their first gradient step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.native import kernel_threads
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, program_length
from modelnative.training.algorithm import episode_returns
from modelnative.training.audit import (
    Audit,
    Numbers,
    Readings,
    Weights,
    group_readings,
    log_prob_readings,
    mask_readings,
    numbers,
    problem_readings,
    verdict_readings,
)
from modelnative.training.gradient import action_log_probs
from modelnative.training.rollout import Rollout
from modelnative.training.update_state import UpdateState

if TYPE_CHECKING:
    from modelnative.training.trainer import Trainer

EVERY = 10  # updates between audits, after those of updates 1 and 2
WHOLE, WHOLE_EVERY = (1, 2, 10), 100  # updates at which all is read, and between them after these
EPISODES, FEW, ALONE = 64, 16, 2  # that are read, of those where fewer do, and that are read one by one


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
        whole: whether to read all; else only masks and groups. None: as the number of the update says.
    """
    whole = audited_whole(trainer.updates + 1) if whole is None else whole
    rollout, n = state.rollout, len(state.length)
    readings: Readings = {}
    if whole or trainer.algorithm.grouped:
        weights = Weights.of(state.columns.advantage.view_as(rollout.reward).t(), rollout.loss_mask.t())
        readings |= verdict_readings(weights, rollout.success) if whole else {}
    if trainer.algorithm.grouped:
        groups, returns = torch.arange(n) // trainer.algorithm.num_generations, episode_returns(rollout)
        readings |= problem_readings(weights, rollout.problems.key) | group_readings(weights, groups, returns)
    step = trainer.group.size * max(1, n // (trainer.group.size * EPISODES))
    rows = range(trainer.group.rank, n, step)[:EPISODES]  # some of those that this process plays
    if not rows:
        return Audit(readings)
    some = slice(rows.start, rows.stop, rows.step)
    mask, running = (numbers(x[:, some]) for x in (rollout.loss_mask, rollout.running))
    readings |= mask_readings(mask.T, running.T)
    if whole:
        with kernel_threads(1):  # so few episodes are not worth sharing
            readings |= _predicted(trainer, state, torch.tensor(rows, device=rollout.success.device), mask)
    return Audit(readings)


def audit_terms(trainer: Trainer, terms: Tensor) -> Audit:
    """The reading of the first gradient step of an update that is not audited whole: of all of its tokens, for free.

    Args:
        trainer: which learns.
        terms: float [8], of the loss, see `LossTerms`.
    """
    *_, gap, count = terms.tolist()
    if audited_whole(trainer.updates + 1) or not count:
        return Audit({})
    return Audit({"log_prob_gap_mean": (gap / count, int(count))})


def _predicted(trainer: Trainer, state: UpdateState, rows: Tensor, mask: Numbers) -> Readings:
    """All that needs the policy's predictions or the task, of some episodes; and their loss mask [T, m]."""
    rollout = state.rollout
    log_prob = _log_probs(trainer, state, rows)
    own = mask & ~numbers(rollout.explored[:, rows])
    readings: Readings = {}
    if own.any():
        old, new = (numbers(x)[own] for x in (rollout.behavior_log_prob[:, rows], log_prob))
        readings |= log_prob_readings(old, new)
    readings |= _alone(trainer, state, rows[:ALONE], log_prob) | _unread(trainer, state, rows, log_prob)
    return readings | _parts(trainer, state, rows[:FEW]) | _played_again(trainer.task, rollout.select(rows))


def _log_probs(trainer: Trainer, state: UpdateState, rows: Tensor, problems: Problems | None = None) -> Tensor:
    """The policy's log-probabilities of the actions of some episodes, by a fresh forward pass: float [T, m].

    `problems` are read instead of those that were played.
    """
    rollout = state.rollout if problems is None else replace(state.rollout, problems=problems)
    return action_log_probs(trainer.policy, rollout, state.length, rows)


def _alone(trainer: Trainer, state: UpdateState, rows: Tensor, log_prob: Tensor) -> Readings:
    """How much the log-probabilities of an episode change if it is the only one."""
    alone = torch.cat([_log_probs(trainer, state, row) for row in rows.split(1)], 1)
    running = state.rollout.running[:, rows]
    change = (alone - log_prob[:, : len(rows)])[running].abs().max()
    return {"row_alone": (float(change), int(running.sum()))}


def _unread(trainer: Trainer, state: UpdateState, rows: Tensor, log_prob: Tensor) -> Readings:
    """How much the log-probabilities change if each episode is given another problem of its stage."""
    problems = state.rollout.problems
    order = rows[problems.stage[rows].sort(stable=True).indices]
    other = torch.arange(len(problems), device=rows.device).index_copy(0, order, order.roll(1))
    differs = (problems.context != problems.context[other]).any(1) & (problems.stage == problems.stage[other])
    given = differs[rows].nonzero()[:FEW, 0]
    if not len(given):
        return {}
    exchanged = _log_probs(trainer, state, rows[given], problems[other])
    seen = state.rollout.running[:, rows[given]]
    change = (exchanged - log_prob[:, given])[seen].abs().max()
    return {"problem_unread": (float(change), int(seen.sum()))}


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


def _played_again(task: AnyTask, rollout: Rollout) -> Readings:
    """How many actions, played again, show, pay or end something else than recorded; and what failures are paid.

    That is a share of what the oracle is paid for the same problems, which are played behind the others.
    """
    problems, actions, n = rollout.problems, rollout.action, len(rollout.success)
    steps = len(actions)
    failed, paid = (~rollout.success).nonzero()[:, 0], rollout.reward.sum(0)
    readings: Readings = {}
    if task.has_oracle and len(failed):
        readings["paid_without_success"] = (0.0, len(failed))
        if bool((paid[failed] > 0).any()):
            failed = failed[:FEW]
            program = task.oracle(problems[failed])
            program = program[:, : int(program_length(program, task.spec.end).max())].t()
            longest = max(steps, len(program))
            both = (pad(x, (0, 0, 0, longest - len(x)), value=task.spec.end) for x in (actions, program))
            problems, actions = Batch.cat([problems, problems[failed]]), torch.cat(list(both), 1)
    feedback, reward, done, success = _replay(task, problems, actions)
    other = (feedback[:steps, :n] != rollout.feedback).any(2) | (reward[:steps, :n] != rollout.reward)
    other[:-1] |= done[: steps - 1, :n] == rollout.running[1:]
    won = (success[:steps, :n] & rollout.running).any(0)
    different = (other & rollout.running).sum() + (won != rollout.success).sum()
    readings["replayed_differently"] = (float(different), int(rollout.running.sum()))
    solved, worth = success[:, n:].any(0), reward[:, n:].sum(0)
    if len(solved):
        del readings["paid_without_success"]
        if bool(solved.any()) and float(worth[solved].mean()) > 0:
            share = float(paid[failed][solved].mean() / worth[solved].mean())
            readings["paid_without_success"] = (share, int(solved.sum()))
    return readings


def _replay(task: AnyTask, problems: Problems, actions: Tensor) -> Sequence[Tensor]:
    """What actions [T, n] meet: the feedback before each [T, n, F]; its reward, `done` and success [T, n]."""
    state: Any = task.begin(problems)
    shown, steps = [task.feedback(state)], list[tuple[Tensor, Tensor, Tensor]]()
    for action in actions:
        step = task.step(state, action)
        state = step.state
        shown.append(step.feedback)
        steps.append((step.reward, step.done, step.success))
    return [torch.stack(shown[:-1]), *map(torch.stack, zip(*steps, strict=True))]
