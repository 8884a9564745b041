"""The kernel of `gru` in policies/cores/gru.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from modelnative.native.operators import Arguments, Call, Kernel, Saved, current_threads, lanes, struct_fields


class GRUCall(Call):
    """As in kernels/gru.cpp."""

    prefix = "gru"
    _fields_ = struct_fields(
        "inputs initial weight bias lengths tokens stage feedback",
        "first_place vocabulary blank places steps sequences width input_rows threads",
    )


def _flatten(
    inputs: Tensor, rows: Any, initial: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor | None
) -> Arguments:
    columns = vars(rows).values() if rows else (None, None, None, 0, 0, 0)
    return inputs, initial, weight, bias, lengths, *columns


def _fits(_: Tensor, initial: Tensor, *rest: Any) -> bool:
    # Without a sequence the address of the tokens is null, which means to C++ that there are none.
    return initial.shape[1] % lanes() == 0 and len(initial) > 0


def _call(*args: Any) -> GRUCall:
    """The arguments for C++."""
    inputs, initial, *_, tokens, _, feedback = args[:8]
    places = 0 if feedback is None else feedback.shape[2]
    steps = len(inputs if tokens is None else tokens)
    return GRUCall(*args, places, steps, *initial.shape, len(inputs), current_threads())


def _forward(learns: bool, *args: Any) -> tuple[Tensor, Saved]:
    """Hidden states; for the derivative gates, hidden states and inner states."""
    call, initial, gates, inner = _call(*args), args[1], None, None
    shape = (call.steps, *initial.shape)
    hidden = initial.new_empty(shape)
    if learns:
        gates, inner = initial.new_empty(*shape[:2], 3 * shape[2]), initial.new_empty(shape)
    call.run("gru_forward", gates, hidden, inner)
    return hidden, (gates, hidden, inner)


def _backward(args: Arguments, saved: Saved, grad: Tensor) -> Sequence[Tensor]:
    gradients = [x.new_empty(x.shape) for x in args[:4]]
    _call(*args).run("gru_backward", *saved, grad, *gradients)
    return gradients


Kernel(
    "gru(Tensor inputs, Tensor initial, Tensor weight, Tensor bias, Tensor? lengths, Tensor? tokens, Tensor? stage, "
    "Tensor? feedback, int first_place, int vocabulary, int blank) -> Tensor",
    _forward,
    _backward,
    _flatten,
    _fits,
)
