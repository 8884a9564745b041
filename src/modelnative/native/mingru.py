"""The kernel of `min_gru` in policies/cores/mingru.py."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from modelnative.native.operators import Arguments, Call, Kernel, Saved, current_threads, lanes, struct_fields


class MinGRUCall(Call):
    """As in kernels/mingru.cpp."""

    prefix = "mingru"
    _fields_ = struct_fields("gates initial", "steps sequences width threads")


def _forward(learns: bool, gates: Tensor, initial: Tensor) -> tuple[Tensor, Saved]:
    """Hidden states."""
    hidden = gates.new_empty(len(gates), *initial.shape)
    MinGRUCall(gates, initial, *hidden.shape, current_threads()).run("mingru_forward", hidden)
    return hidden, (hidden,)


def _backward(args: Arguments, saved: Saved, grad: Tensor) -> Sequence[Tensor]:
    gates, initial = args
    gradients = gates.new_empty(gates.shape), initial.new_empty(initial.shape)
    call = MinGRUCall(gates, initial, len(gates), *initial.shape, current_threads())
    call.run("mingru_backward", *saved, grad, *gradients)
    return gradients


Kernel(
    "min_gru(Tensor gates, Tensor initial) -> Tensor",
    _forward,
    _backward,
    fits=lambda gates, initial: initial.shape[1] % lanes() == 0 and initial.numel() > 0,
)
