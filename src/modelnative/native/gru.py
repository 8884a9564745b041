"""The kernel of `gru` in policies/cores/gru.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from ctypes import POINTER, byref, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelnative.native.operators import (
    Call,
    address,
    computable,
    current_threads,
    define,
    function,
    lanes,
    struct_fields,
)


class GRUCall(Call):
    """As in kernels/gru.cpp."""

    _fields_ = struct_fields(
        "inputs rows lengths initial weight bias", "count padding steps sequences width input_rows threads"
    )


@functools.cache
def _functions() -> tuple[Callable[..., None], Callable[..., None]]:
    GRUCall.checked("gru_call_size")
    kind = POINTER(GRUCall)
    return function("gru_forward", kind, *[c_void_p] * 3), function("gru_backward", kind, *[c_void_p] * 8)


def supports(
    inputs: Tensor,
    rows: Tensor | None,
    initial: Tensor,
    weight: Tensor,
    bias: Tensor,
    lengths: Tensor | None = None,
    padding: int = -1,
) -> bool:
    """Whether there is a kernel for these arguments of `gru`."""
    # Without a sequence the address of `rows` is null, which means to C++ that there are none.
    return computable(inputs, initial, weight, bias) and initial.shape[1] % lanes() == 0 and len(initial) > 0


def call(
    inputs: Tensor,
    rows: Tensor | None,
    initial: Tensor,
    weight: Tensor,
    bias: Tensor,
    lengths: Tensor | None = None,
    padding: int = -1,
) -> Tensor:
    """As `gru`."""
    hidden: Tensor = torch.ops.modelnative.gru.default(inputs, rows, initial, weight, bias, lengths, padding)
    return hidden


def _call(
    inputs: Tensor,
    rows: Tensor | None,
    initial: Tensor,
    weight: Tensor,
    bias: Tensor,
    lengths: Tensor | None,
    padding: int,
) -> tuple[GRUCall, list[Tensor | None]]:
    """The arguments for C++, and the tensors that must live as long."""
    tensors = [None if x is None else x.contiguous() for x in (inputs, rows, lengths, initial, weight, bias)]
    steps = (inputs if rows is None else rows).shape[0]
    count = 0 if rows is None else rows.shape[2]
    numbers = (count, padding, steps, *initial.shape, len(inputs), current_threads())
    return GRUCall(*map(address, tensors), *numbers), tensors


def _compute(learns: bool, *args: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Hidden states and, for the derivative, gates and inner states."""
    arguments, held = _call(*args)
    initial = args[2]
    shape = (arguments.steps, *initial.shape)
    hidden, gates, inner = initial.new_empty(shape), None, None
    if learns:
        gates, inner = initial.new_empty(*shape[:2], 3 * shape[2]), initial.new_empty(shape)
    _functions()[0](byref(arguments), address(gates), address(hidden), address(inner))
    del held
    return hidden, gates, inner


def _forward(*args: Any) -> Tensor:
    return _compute(False, *args)[0]


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        hidden, gates, inner = _compute(True, *args)
        *tensors, ctx.padding = args
        ctx.save_for_backward(*tensors, hidden, gates, inner)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, rows, initial, weight, bias, lengths, hidden, gates, inner = ctx.saved_tensors
        arguments, held = _call(inputs, rows, initial, weight, bias, lengths, ctx.padding)
        grad = grad.contiguous()
        gradients = [x.new_empty(x.shape) for x in (inputs, initial, weight, bias)]
        _functions()[1](byref(arguments), *map(address, (gates, hidden, inner, grad, *gradients)))
        del held
        return gradients[0], None, *gradients[1:], None, None


define(
    "gru(Tensor inputs, Tensor? rows, Tensor initial, Tensor weight, Tensor bias, Tensor? lengths, int padding) "
    "-> Tensor",
    _forward,
    _GRU.apply,
)
