"""The kernels of `transformer_layer` and `cached_transformer_layer` in policies/cores/attention.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from modelnative.native.operators import Arguments, Call, Kernel, Saved, current_threads, lanes, struct_fields

WEIGHTS = "norm norm_bias qkv qkv_bias out out_bias second second_bias up up_bias down down_bias"


class TransformerCall(Call):
    """As in kernels/transformer.cpp."""

    prefix = "transformer"
    _fields_ = struct_fields(
        f"x {WEIGHTS} lengths keys values", "steps sequences width inner heads past capacity threads"
    )


def _call(
    x: Tensor,
    *weights: Tensor,
    heads: int,
    lengths: Tensor | None = None,
    keys: Tensor | None = None,
    values: Tensor | None = None,
    past: int = 0,
) -> TransformerCall:
    """The arguments for C++."""
    steps, sequences, width = x.shape
    inner, capacity = len(weights[-3]), 0 if keys is None else keys.shape[1]
    sizes = (steps, sequences, width, inner, heads, past, capacity, current_threads())
    return TransformerCall(x, *weights, lengths, keys, values, *sizes)


def _fits(x: Tensor, *rest: Any) -> bool:
    inner, heads = rest[8], rest[-1]  # the bias of `up`
    sizes = (inner.shape[0], x.shape[2] // heads)
    return x.numel() > 0 and not any(size % lanes() for size in sizes)


def _forward(learns: bool, *args: Any) -> tuple[Tensor, Saved]:
    """The output; for the derivative queries, keys and values, what attention gave, and more, packed."""
    *tensors, lengths, heads = args
    call, x = _call(*tensors, lengths=lengths, heads=heads), args[0]
    y, saved = x.new_empty(x.shape), [None] * 5
    if learns:
        widths = (3 * call.width, call.width, call.width, call.inner, heads)
        saved = [x.new_empty(call.steps * call.sequences, width) for width in widths]
    call.run("transformer_forward", y, *saved)
    return y, saved


def _backward(args: Arguments, saved: Saved, grad: Tensor) -> Sequence[Tensor]:
    *tensors, lengths, heads = args
    gradients = [x.new_empty(x.shape) for x in tensors]
    _call(*tensors, lengths=lengths, heads=heads).run("transformer_backward", *saved, grad, *gradients)
    return gradients


def _cached(learns: bool, *args: Any) -> tuple[Tensor, Saved]:
    """The output; keys and values are written into the cache."""
    *tensors, keys, values, past, heads = args
    y = tensors[0].new_empty(tensors[0].shape)
    call = _call(*tensors, heads=heads, keys=keys, values=values, past=past)
    call.run("transformer_forward", y, *[None] * 5)
    return y, ()


_TENSORS = "Tensor x, " + ", ".join(f"Tensor {name}" for name in WEIGHTS.split())

Kernel(
    f"transformer_layer({_TENSORS}, Tensor? lengths, int heads) -> Tensor",
    _forward,
    _backward,
    lambda x, weights, heads, lengths: (x, *vars(weights).values(), lengths, heads),
    _fits,
)
Kernel(
    f"cached_transformer_layer({_TENSORS}, Tensor(a!) keys, Tensor(b!) values, int past, int heads) -> Tensor",
    _cached,
    None,
    lambda x, keys, values, past, weights, heads: (x, *vars(weights).values(), keys, values, past, heads),
    _fits,
)
