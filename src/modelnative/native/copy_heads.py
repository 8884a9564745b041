"""The kernel of `copy_heads` in policies/heads.py."""

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


class HeadsCall(Call):
    """As in kernels/heads.cpp."""

    _fields_ = struct_fields(
        "hidden weight bias context selected", "rows width vocabulary places padding episodes threads"
    )


@functools.cache
def _functions() -> tuple[Callable[..., None], Callable[..., None]]:
    HeadsCall.checked("heads_call_size")
    kind = POINTER(HeadsCall)
    return function("heads_forward", kind, *[c_void_p] * 4), function("heads_backward", kind, *[c_void_p] * 8)


def supports(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    context: Tensor,
    vocabulary: int,
    padding: int,
    selected: Tensor | None = None,
) -> bool:
    """Whether there is a kernel for these arguments of `copy_heads`."""
    return computable(hidden, weight, bias) and hidden.shape[1] % lanes() == 0


def call(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    context: Tensor,
    vocabulary: int,
    padding: int,
    selected: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `copy_heads`."""
    outputs = torch.ops.modelnative.copy_heads.default(hidden, weight, bias, context, selected, vocabulary, padding)
    log_probs, value, copied = outputs
    return log_probs, value, copied


def _call(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    context: Tensor,
    selected: Tensor | None,
    vocabulary: int,
    padding: int,
) -> tuple[HeadsCall, list[Tensor | None]]:
    """The arguments for C++, and the tensors that must live as long."""
    tensors = [None if x is None else x.contiguous() for x in (hidden, weight, bias, context, selected)]
    rows, (episodes, places) = len(hidden if selected is None else selected), context.shape
    places = places if len(bias) > vocabulary + 1 else 0
    numbers = (rows, hidden.shape[1], vocabulary, places, padding, episodes, current_threads())
    return HeadsCall(*map(address, tensors), *numbers), tensors


def _compute(learns: bool, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What `copy_heads` returns and, for the derivative, the written part of the probabilities."""
    arguments, held = _call(*args)
    rows, hidden = arguments.rows, args[0]
    log_probs, value = hidden.new_empty(rows, arguments.vocabulary), hidden.new_empty(rows)
    copied, written = hidden.new_empty(rows, arguments.places), torch.empty_like(log_probs) if learns else None
    _functions()[0](byref(arguments), *map(address, (log_probs, value, copied, written)))
    del held
    return log_probs, value, copied, written


def _forward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _compute(False, *args)[:3]


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        log_probs, value, copied, written = _compute(True, *args)
        *tensors, ctx.vocabulary, ctx.padding = args
        ctx.save_for_backward(*tensors, copied, written)
        return log_probs, value, copied

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, context, selected, copied, written = ctx.saved_tensors
        arguments, held = _call(hidden, weight, bias, context, selected, ctx.vocabulary, ctx.padding)
        given = [grad.contiguous() for grad in grads]
        of_hidden = hidden.new_empty(hidden.shape) if selected is None else hidden.new_zeros(hidden.shape)
        gradients = (of_hidden, weight.new_empty(weight.shape), bias.new_empty(bias.shape))
        _functions()[1](byref(arguments), *map(address, (copied, written, *given, *gradients)))
        del held
        return *gradients, None, None, None, None


define(
    "copy_heads(Tensor hidden, Tensor weight, Tensor bias, Tensor context, Tensor? selected, int vocabulary, "
    "int padding) -> (Tensor, Tensor, Tensor)",
    _forward,
    _Heads.apply,
)
