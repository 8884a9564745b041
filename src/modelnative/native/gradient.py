"""The kernels of `policy_gradient` and `action_log_probs` in training/gradient.py.

They are for the shipped policy with a GRU of one layer.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from modelnative.native.network import NETWORK, network_arguments, network_fields
from modelnative.native.operators import Arguments, Call, Kernel, Saved, current_threads, lanes, struct_fields

PARAMETERS, TERMS = 8, 8  # of the network, and of the loss


class GradientCall(Call):
    """As in kernels/gradient.cpp."""

    prefix = "gradient"
    _fields_ = (
        *network_fields(),
        *struct_fields("token feedback context stage length episodes mask", ""),
        *struct_fields("action behavior_log_prob advantage target loss_mask explored hint_mask", "all count threads"),
        *struct_fields("", "", "clip_low clip_high imitation hint value_weight entropy weight_count"),
    )


def _flatten(policy: Any, parameters: Any, state: Any, rows: Tensor, weights: Any) -> Arguments | None:
    network = network_arguments(policy)
    # A gradient of some of the parameters, or in another order, is another function.
    if network is None or len(parameters) != PARAMETERS or any(map(operator.is_not, network[0], parameters)):
        return None
    rollout = state.rollout
    *columns, _ = vars(state.columns).values()
    played = (rollout.token, rollout.feedback, rollout.problems.context, rollout.problems.stage, state.length)
    return (
        *(p.detach() for p in parameters),
        *played,
        rows,
        state.mask,
        *columns,
        list(network[1]),
        list(vars(weights).values()),
    )


def _forward(learns: bool, *args: Any) -> tuple[list[Tensor], Saved]:
    """The gradients, and the terms of the loss."""
    *tensors, numbers, weights = args
    parameters, rows = tensors[:PARAMETERS], tensors[PARAMETERS + 5]
    whole = torch.empty(sum(p.numel() for p in parameters), dtype=torch.float32)
    terms = torch.empty(TERMS, dtype=torch.float32)
    context = tensors[PARAMETERS + 2]
    call = GradientCall(
        *tensors[:PARAMETERS], *numbers, *tensors[PARAMETERS:], len(context), len(rows), current_threads(), *weights
    )
    call.run("policy_gradient", terms, whole)
    parts = whole.split([p.numel() for p in parameters])
    return [*(part.view_as(p) for part, p in zip(parts, parameters, strict=True)), terms], ()


Kernel(
    f"policy_gradient({NETWORK}, Tensor token, Tensor feedback, Tensor context, Tensor stage, Tensor length, "
    "Tensor episodes, Tensor mask, Tensor action, Tensor behavior_log_prob, Tensor advantage, Tensor target, "
    "Tensor loss_mask, Tensor explored, Tensor hint_mask, int[] numbers, float[] weights) -> Tensor[]",
    _forward,
    flatten=_flatten,
    fits=lambda *args: args[0].shape[1] % lanes() == 0 and len(args[PARAMETERS + 5]) > 0,
)


def _flatten_episodes(policy: Any, rollout: Any, length: Tensor, rows: Tensor) -> Arguments | None:
    network = network_arguments(policy)
    if network is None:
        return None
    problems = rollout.problems
    played = (rollout.token, rollout.feedback, problems.context, problems.stage, length, rows, rollout.running)
    return *(p.detach() for p in network[0]), *played, rollout.action, list(network[1])


def _log_probs(learns: bool, *args: Any) -> tuple[Tensor, Saved]:
    """Zeros after the end of an episode."""
    *tensors, action, numbers = args
    rows = tensors[PARAMETERS + 5]
    found = torch.zeros(len(action), len(rows))
    unread = [None] * 6 + [action.shape[1], len(rows), 1] + [0] * 7
    GradientCall(*tensors[:PARAMETERS], *numbers, *tensors[PARAMETERS:], action, *unread).run("action_log_probs", found)
    return found, ()


Kernel(
    f"action_log_probs({NETWORK}, Tensor token, Tensor feedback, Tensor context, Tensor stage, Tensor length, "
    "Tensor episodes, Tensor mask, Tensor action, int[] numbers) -> Tensor",
    _log_probs,
    flatten=_flatten_episodes,
    fits=lambda *args: args[0].shape[1] % lanes() == 0 and len(args[PARAMETERS + 5]) > 0,
)
