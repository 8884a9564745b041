"""The kernel of `policy_loss` in training/loss.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from modelnative.native.operators import Arguments, Call, Kernel, Saved, current_threads, struct_fields


class LossCall(Call):
    """As in kernels/loss.cpp."""

    prefix = "loss"
    _fields_ = struct_fields(
        "logits value action behavior_log_prob advantage target loss_mask explored hint_mask where",
        "rows vocabulary threads",
        "clip_low clip_high imitation hint value_weight entropy count",
    )


def _flatten(logits: Tensor, value: Tensor, tokens: Any, weights: Any) -> Arguments:
    return logits, value, *vars(tokens).values(), list(vars(weights).values())


def _forward(learns: bool, logits: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Saved]:
    """The terms; for the derivative the gradients of the loss by logits and value."""
    *columns, weights = rest
    terms, of_logits, of_value = logits.new_empty(8), logits.new_empty(logits.shape), value.new_empty(value.shape)
    call = LossCall(logits, value, *columns, *logits.shape, current_threads(), *weights)
    call.run("policy_loss", terms, of_logits, of_value)
    return terms, (of_logits, of_value)


def _backward(args: Arguments, saved: Sequence[Tensor], grad: Tensor) -> Sequence[Tensor]:
    """Only the first term, the loss, has a derivative; the others are for reports."""
    return [gradient * grad[0] for gradient in saved]


Kernel(
    "policy_loss(Tensor logits, Tensor value, Tensor action, Tensor behavior_log_prob, Tensor advantage, "
    "Tensor target, Tensor loss_mask, Tensor explored, Tensor hint_mask, Tensor? where, float[] weights) -> Tensor",
    _forward,
    _backward,
    _flatten,
)
