"""The gradient of the loss on some episodes, or their log-probabilities alone, by a fresh forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from modelnative.native import operator
from modelnative.policies.contract import Policy, forward_rollout
from modelnative.training.loss import LossWeights, policy_loss
from modelnative.training.rollout import Rollout
from modelnative.training.update_state import UpdateState


@operator("gradient")
def policy_gradient(
    policy: Policy, parameters: Sequence[Tensor], state: UpdateState, rows: Tensor, weights: LossWeights
) -> list[Tensor]:
    """The gradient of the loss on some episodes by every parameter, and, last, the loss's terms, float [8].

    Args:
        policy: is asked anew for its predictions.
        parameters: of the policy.
        state: what was played, and what to learn from it.
        rows: int64 [m], the episodes.
        weights: of the loss.
    """
    terms = episode_loss(policy, state, rows, weights)
    gradients = torch.autograd.grad(terms[0], list(parameters), materialize_grads=True)
    return [*gradients, terms.detach()]


def episode_loss(policy: Policy, state: UpdateState, rows: Tensor, weights: LossWeights) -> Tensor:
    """The terms of the loss that some episodes add.

    On a CPU, nothing is computed for tokens after the end and no prediction for tokens outside the loss. Elsewhere
    shapes that do not depend on the data are worth more.
    """
    rollout, n, on_cpu = state.rollout, len(state.length), rows.device.type == "cpu"
    lengths, steps = None, len(rollout.token)
    if on_cpu:
        lengths, order = state.length.index_select(0, rows).sort(descending=True, stable=True)
        rows, steps = rows.index_select(0, order), int(lengths[0])
    where = (torch.arange(steps, device=rows.device)[:, None] * n + rows).flatten()
    token = rollout.token.flatten().index_select(0, where).view(steps, -1)
    feedback = rollout.feedback.flatten(0, 1).index_select(0, where).view(steps, len(rows), -1)
    selected = None
    if on_cpu:
        selected = state.mask.flatten().index_select(0, where).nonzero()[:, 0]
        where = where.index_select(0, selected)
    output = forward_rollout(policy, rollout.problems[rows], token, feedback, lengths, selected)
    return policy_loss(output.logits, output.value, replace(state.columns, where=where), weights)


@operator("gradient")
def action_log_probs(policy: Policy, rollout: Rollout, length: Tensor, rows: Tensor) -> Tensor:
    """Log-probabilities of the actions of some episodes: float [T, m]. After the end of an episode they mean nothing.

    Args:
        policy: is asked anew for its predictions.
        rollout: of n episodes.
        length: int64 [n], their actions.
        rows: int64 [m], the episodes.
    """
    some = rollout.select(rows)
    output = forward_rollout(policy, some.problems, some.token, some.feedback, None, None)
    log_probs = output.logits.float().log_softmax(-1)
    return log_probs.gather(-1, some.action.flatten()[:, None])[:, 0].view_as(some.action)
