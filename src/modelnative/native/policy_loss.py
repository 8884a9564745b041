"""The kernel of `policy_loss` in training/loss.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from ctypes import POINTER, byref, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelnative.native.operators import Call, address, computable, current_threads, define, function, struct_fields


class LossCall(Call):
    """As in kernels/loss.cpp."""

    _fields_ = struct_fields(
        "logits value action behavior_log_prob advantage target loss_mask explored hint_mask where",
        "rows vocabulary threads",
        "clip_low clip_high imitation hint value_weight entropy count",
    )


@functools.cache
def _function() -> Callable[..., None]:
    LossCall.checked("loss_call_size")
    return function("policy_loss", POINTER(LossCall), *[c_void_p] * 3)


def supports(logits: Tensor, value: Tensor, tokens: Any, weights: Any) -> bool:
    """Whether there is a kernel for these arguments of `policy_loss`."""
    return computable(logits, value, tokens.behavior_log_prob, tokens.advantage, tokens.target)


def call(logits: Tensor, value: Tensor, tokens: Any, weights: Any) -> Tensor:
    """As `policy_loss`."""
    terms: Tensor = torch.ops.modelnative.policy_loss.default(
        logits,
        value,
        tokens.action,
        tokens.behavior_log_prob,
        tokens.advantage,
        tokens.target,
        tokens.loss_mask,
        tokens.explored,
        tokens.hint_mask,
        tokens.where,
        [
            weights.clip_low,
            weights.clip_high,
            weights.imitation,
            weights.hint,
            weights.value,
            weights.entropy,
            float(weights.count),
        ],
    )
    return terms


def _compute(logits: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The terms, and the gradients of the loss by logits and value."""
    *columns, weights = rest
    tensors = [None if x is None else x.contiguous() for x in (logits, value, *columns)]
    arguments = LossCall(*map(address, tensors), *logits.shape, current_threads(), *weights)
    terms, of_logits, of_value = logits.new_empty(6), logits.new_empty(logits.shape), value.new_empty(value.shape)
    _function()(byref(arguments), *map(address, (terms, of_logits, of_value)))
    return terms, of_logits, of_value


def _forward(*args: Any) -> Tensor:
    return _compute(*args)[0]


class _Loss(torch.autograd.Function):
    """Only the first term, the loss, has a derivative; the others are for reports."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        terms, *gradients = _compute(*args)
        ctx.save_for_backward(*gradients)
        return terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_logits, of_value = ctx.saved_tensors
        return of_logits * grad[0], of_value * grad[0], *[None] * 9


define(
    "policy_loss(Tensor logits, Tensor value, Tensor action, Tensor behavior_log_prob, Tensor advantage, "
    "Tensor target, Tensor loss_mask, Tensor explored, Tensor hint_mask, Tensor? where, float[] weights) -> Tensor",
    _forward,
    _Loss.apply,
)
