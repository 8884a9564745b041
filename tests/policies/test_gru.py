"""The hand-written recurrence against `torch.nn.GRU`, in values and in gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from modelnative.policies.recurrence import gru

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6).map(lambda lengths: sorted(lengths, reverse=True))


def alone(gates: Tensor, h0: Tensor, weight: Tensor, bias: Tensor, sizes: list[int]) -> Tensor:
    """One network."""
    return gru(gates[None], h0[None], weight[None], bias[None], sizes)[0]


def both(lengths: list[int], width: int, seed: int, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states, and gradients of inputs, start and parameters: of `nn.GRU`, and of `gru`."""
    generator = torch.Generator().manual_seed(seed)
    cell = nn.GRU(3, width).to(dtype)
    for parameter in cell.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype) / width**0.5
    x = torch.randn(max(lengths), len(lengths), 3, generator=generator, dtype=dtype, requires_grad=True)
    h0 = torch.randn(len(lengths), width, generator=generator, dtype=dtype, requires_grad=True)
    packed = pack_padded_sequence(x, torch.tensor(lengths))
    theirs = cell(packed, h0[None])[0].data
    inner = cell.bias_hh_l0[2 * width :]
    outer = cell.bias_ih_l0 + nn.functional.pad(cell.bias_hh_l0[: 2 * width], (0, width))
    gates = packed.data @ cell.weight_ih_l0.t() + outer
    ours = alone(gates, h0, cell.weight_hh_l0, inner, packed.batch_sizes.tolist())
    weight = torch.randn(theirs.shape, generator=generator, dtype=dtype)
    read = (x, h0, *cell.parameters())
    return tuple(
        [hidden, *torch.autograd.grad((hidden * weight).sum(), read, retain_graph=True)] for hidden in (theirs, ours)
    )


@given(LENGTHS, st.integers(1, 5), st.integers(0, 10**6))
@settings(deadline=None)
def test_it_is_the_gru_of_torch(lengths: list[int], width: int, seed: int) -> None:
    for theirs, ours in zip(*both(lengths, width, seed, torch.float64), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("width", [16, 64])
def test_it_is_the_gru_of_torch_in_single_precision(width: int) -> None:
    for theirs, ours in zip(*both([12] * 40 + [7] * 9, width, 0, torch.float32), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.detach().abs().max()))


def test_large_inputs_stay_finite() -> None:
    gates = torch.tensor([[1e4, -1e4, 1e4], [-1e4, 1e4, -1e4]]).requires_grad_()
    hidden = alone(gates * 1, torch.ones(1, 1), torch.ones(3, 1), torch.ones(1), [1, 1])
    hidden.sum().backward()
    assert hidden.flatten().tolist() == [1.0, 1.0]
    assert gates.grad is not None
    assert bool(gates.grad.isfinite().all())


def test_the_gradient_can_be_taken_twice() -> None:
    """Nothing that backward reads is overwritten by it."""
    gates, h0 = torch.randn(6, 6).requires_grad_(), torch.randn(3, 2)
    hidden = alone(gates * 1, h0, torch.randn(6, 2), torch.randn(2), [3, 2, 1]).sum()
    first, again = (torch.autograd.grad(hidden, gates, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)
