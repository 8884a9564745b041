"""The recurrence of a GRU over packed sequences, forward and backward written out by hand.

`torch.nn.GRU` multiplies the inputs by their weights, and adds up the gradient of its weights, at every time step. Here
the inputs come already multiplied, the gradients of all time steps are one matrix product, finished sequences cost
nothing, and tanh(x) is 2σ(2x) − 1, a quarter of its time on a CPU. Native kernels, where there are some, do the same in
a third of the time. `tests/policies/test_recurrence.py` holds both against `torch.nn.GRU`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelnative import native


def gru(gates: Tensor, h0: Tensor, weight: Tensor, bias: Tensor, sizes: Sequence[int]) -> Tensor:
    """Hidden states of S gated recurrent units (Cho et al., 2014, in the form of `torch.nn.GRU`), each on its own data.

    The sequences are packed as in `torch.nn.utils.rnn.PackedSequence`: time first, step t has `sizes[t]` rows, never
    more than step t - 1, and row i of step t continues row i of step t - 1.

    Args:
        gates: float [S, N, 3H], what the inputs and all biases but `bias` add to reset gate, update gate and
            candidate. It is overwritten.
        h0: float [S, n, H], n = sizes[0].
        weight: float [S, 3H, H].
        bias: float [S, H], added to the candidate's recurrent part before the reset gate.
        sizes: T numbers whose sum is N.

    Returns:
        float [S, N, H].
    """
    if native.fits(h0.shape[-1], gates, h0, weight, bias):
        own = zip(gates, h0, weight, bias, strict=True)
        return torch.stack([_NativeGRU.apply(None, sizes, *one) for one in own])  # type: ignore[no-untyped-call]
    return _GRU.apply(gates, h0, weight, bias, tuple(sizes))  # type: ignore[no-untyped-call]


def gru_of(
    inputs: native.Inputs, table: Tensor, h0: Tensor, weight: Tensor, bias: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Hidden states of one unit whose gates are sums of rows of a table, by the native kernels: float [N, H].

    Args:
        inputs: which rows.
        table: float [R, 3H].
        h0, weight, bias, sizes: as in `gru`, without the first dimension.
    """
    if not torch.is_grad_enabled():
        return native.gru_forward(sizes, h0, weight, bias, table=table, inputs=inputs, keep=False)[0]
    return _NativeGRU.apply(inputs, sizes, table, h0, weight, bias)  # type: ignore[no-untyped-call]


class _NativeGRU(torch.autograd.Function):
    """`given` are the gates without `inputs`, the table with them."""

    @staticmethod
    def forward(ctx: Any, inputs: native.Inputs | None, sizes: Sequence[int], given: Tensor, *rest: Tensor) -> Tensor:
        if inputs is None:
            saved = native.gru_forward(sizes, *rest, gates=given.contiguous())
        else:
            saved = native.gru_forward(sizes, *rest, table=given, inputs=inputs)
        ctx.save_for_backward(given if inputs is not None else None, *rest, *saved)
        ctx.inputs, ctx.sizes = inputs, sizes
        return saved[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        table, h0, weight, bias, *saved = ctx.saved_tensors
        gradients = native.gru_backward(ctx.sizes, h0, weight, bias, tuple(saved), grad, table=table, inputs=ctx.inputs)
        return None, None, *gradients


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, h0: Tensor, weight: Tensor, bias: Tensor, sizes: tuple[int, ...]) -> Tensor:
        width = h0.shape[-1]
        both, candidate = gates.split([2 * width, width], -1)
        candidate.mul_(2)
        hidden, inner = gates.new_empty(2, *candidate.shape)
        of_both, of_inner = weight.transpose(1, 2).split([2 * width, width], -1)
        of_inner, twice, minus = 2 * of_inner, 2 * bias[:, None], gates.new_tensor(-1.0)
        h, start = h0, 0
        for size in sizes:
            now = slice(start, start + size)
            h = h[:, :size]
            reset, update = both[:, now].baddbmm_(h, of_both).sigmoid_().split(width, -1)
            torch.baddbmm(twice, h, of_inner, out=inner[:, now])
            proposed = candidate[:, now].addcmul_(reset, inner[:, now]).sigmoid_()
            torch.add(minus, proposed, alpha=2, out=proposed)
            h = torch.lerp(proposed, h, update, out=hidden[:, now])
            start += size
        ctx.save_for_backward(gates, h0, weight, hidden, inner)
        ctx.sizes = sizes
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        gates, h0, weight, hidden, inner = ctx.saved_tensors
        sizes, (networks, tokens, width) = ctx.sizes, hidden.shape
        starts = [0, *itertools.accumulate(sizes)]
        before = torch.cat([h0] + [hidden[:, a : a + size] for a, size in zip(starts, sizes[1:], strict=False)], 1)
        reset, update, proposed = gates.split(width, -1)
        # With dh the gradient of a hidden state, those of the three gates are dh times:
        slopes = gates.new_empty(networks, tokens, 3, width)
        keep = 1 - update
        of_candidate = torch.addcmul(keep, keep * proposed, proposed, value=-1)
        torch.mul(of_candidate, reset, out=slopes[:, :, 2])
        torch.mul(slopes[:, :, 2] * inner, (1 - reset).div_(2), out=slopes[:, :, 0])
        torch.mul((before - proposed).mul_(update), keep, out=slopes[:, :, 1])
        whole = torch.empty_like(hidden)
        carried = grad[:, :0]
        for start, size in zip(reversed(starts[:-1]), reversed(sizes), strict=True):
            now, last = slice(start, start + size), carried.shape[1]
            dh = whole[:, now]
            torch.add(grad[:, start : start + last], carried, out=dh[:, :last])
            if last < size:
                dh[:, last:] = grad[:, start + last : start + size]
            change = slopes[:, now].mul_(dh[:, :, None]).flatten(2)
            carried = torch.mul(dh, update[:, now]).baddbmm_(change, weight)
        change = slopes.flatten(2)
        of_weight = change.transpose(1, 2) @ before
        of_bias = change[:, :, 2 * width :].sum(1)
        torch.mul(whole, of_candidate, out=slopes[:, :, 2])
        return change, carried, of_weight, of_bias, None
