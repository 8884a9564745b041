"""The kernel of `copy_heads` in policies/heads.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from modelnative.native.operators import Arguments, Call, Kernel, Saved, current_threads, lanes, struct_fields


class HeadsCall(Call):
    """As in kernels/heads.cpp."""

    prefix = "heads"
    _fields_ = struct_fields(
        "hidden weight bias context selected", "rows width vocabulary places padding episodes threads"
    )


def _call(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    context: Tensor,
    vocabulary: int,
    padding: int,
    selected: Tensor | None,
) -> HeadsCall:
    """The arguments for C++."""
    rows, (episodes, places) = len(hidden if selected is None else selected), context.shape
    places = places if len(bias) > vocabulary + 1 else 0
    tensors = (hidden, weight, bias, context, selected)
    return HeadsCall(*tensors, rows, hidden.shape[1], vocabulary, places, padding, episodes, current_threads())


def _forward(learns: bool, hidden: Tensor, *rest: Any) -> tuple[tuple[Tensor, ...], Saved]:
    """What `copy_heads` returns; for the derivative the copied and the written part of the probabilities."""
    call = _call(hidden, *rest)
    log_probs, value = hidden.new_empty(call.rows, call.vocabulary), hidden.new_empty(call.rows)
    copied = hidden.new_empty(call.rows, call.places)
    written = hidden.new_empty(log_probs.shape) if learns else None
    call.run("heads_forward", log_probs, value, copied, written)
    return (log_probs, value, copied), (copied, written)


def _backward(args: Arguments, saved: Saved, *grads: Tensor) -> Sequence[Tensor]:
    hidden, weight, bias, *_, selected = args
    of_hidden = hidden.new_empty(hidden.shape) if selected is None else hidden.new_zeros(hidden.shape)
    gradients = (of_hidden, weight.new_empty(weight.shape), bias.new_empty(bias.shape))
    _call(*args).run("heads_backward", *saved, *grads, *gradients)
    return gradients


Kernel(
    "copy_heads(Tensor hidden, Tensor weight, Tensor bias, Tensor context, int vocabulary, int padding, "
    "Tensor? selected) -> (Tensor, Tensor, Tensor)",
    _forward,
    _backward,
    fits=lambda hidden, *_: hidden.shape[1] % lanes() == 0,
)
