"""The operator `gru` against `torch.nn.GRU`, in values and in gradients; both its plain definition and its kernel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from modelnative.policies.core import InputRows
from modelnative.policies.cores.gru import gru

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6)
SEEDS = st.integers(0, 10**6)
# The kernel computes in single precision, for widths that a vector divides; the plain definition computes the rest.
EXACT = {"rtol": 1e-9, "atol": 1e-9}
SINGLE = {"rtol": 1e-3, "atol": 1e-4}


def both(lengths: list[int], width: int, seed: int, dtype: torch.dtype, given_lengths: bool = True) -> list[list]:
    """Hidden states, and gradients of inputs, start and parameters: of `nn.GRU`, and of `gru`."""
    generator = torch.Generator().manual_seed(seed)
    cell = nn.GRU(3, width).to(dtype)
    for parameter in cell.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype) / width**0.5
    x = torch.randn(max(lengths), len(lengths), 3, generator=generator, dtype=dtype, requires_grad=True)
    h0 = torch.randn(len(lengths), width, generator=generator, dtype=dtype, requires_grad=True)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    theirs = pad_packed_sequence(cell(packed, h0[None])[0])[0]  # 0 after the end
    inner = cell.bias_hh_l0[2 * width :]
    outer = cell.bias_ih_l0 + nn.functional.pad(cell.bias_hh_l0[: 2 * width], (0, width))
    inputs = x @ cell.weight_ih_l0.t() + outer
    ours = gru(inputs, None, h0, cell.weight_hh_l0, inner, torch.tensor(lengths) if given_lengths else None)
    weight = torch.randn(theirs.shape, generator=generator, dtype=dtype)
    read = (x, h0, *cell.parameters())
    return [
        [hidden, *torch.autograd.grad((hidden * weight).sum(), read, retain_graph=True)] for hidden in (theirs, ours)
    ]


@given(LENGTHS, st.integers(1, 5), SEEDS)
@settings(deadline=None)
def test_it_is_the_gru_of_torch(lengths: list[int], width: int, seed: int) -> None:
    """Sequences of any lengths in any order; hidden states are 0 after the end, and no gradient comes from there."""
    for theirs, ours in zip(*both(lengths, width, seed, torch.float64), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


@given(LENGTHS, SEEDS)
@settings(deadline=None)
def test_it_is_the_gru_of_torch_in_single_precision(lengths: list[int], seed: int) -> None:
    for theirs, ours in zip(*both(lengths, 16, seed, torch.float32), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * (1 + float(theirs.detach().abs().max())))


@pytest.mark.parametrize("width", [16, 64])
@pytest.mark.parametrize("lengths", [[12] * 40 + [7] * 9, [3, 12, 1, 5] * 30, [12] * 7])
def test_many_sequences(width: int, lengths: list[int]) -> None:
    for theirs, ours in zip(*both(lengths, width, 0, torch.float32), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * (1 + float(theirs.detach().abs().max())))


def test_without_lengths_all_sequences_have_the_same() -> None:
    for dtype, tolerance in ((torch.float64, EXACT), (torch.float32, SINGLE)):
        for theirs, ours in zip(*both([5] * 3, 16, 0, dtype, given_lengths=False), strict=True):
            torch.testing.assert_close(ours, theirs, **tolerance)


@given(SEEDS, st.integers(1, 9), st.sampled_from([torch.float64, torch.float32]), st.booleans(), st.booleans())
@settings(deadline=None)
def test_rows_are_added_up(seed: int, n: int, dtype: torch.dtype, some_end: bool, more: bool) -> None:
    """With `rows`, values and gradients are those of the sums of rows. A blank counts as zero."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    def tokens(*shape: int) -> Tensor:
        return torch.randint(3, shape, generator=generator)

    table, h0, weight, bias = normal(11, 48), normal(n, 16), normal(48, 16), normal(16)
    rows = (
        InputRows(tokens(4, n), 3 + tokens(n) % 2, tokens(4, n, 2), 5, 3, blank=2) if more else InputRows(tokens(4, n))
    )
    lengths = torch.randint(1, 5, (n,), generator=generator) if some_end else None
    factor = normal(4, n, 16).detach()
    arguments = (table, h0, weight, bias)
    found = gru(table, rows, h0, weight, bias, lengths)
    read = table[rows.tokens]
    if rows.feedback is not None:
        places = table[rows.feedback + torch.tensor([5, 8])].masked_fill((rows.feedback == 2)[..., None], 0.0)
        read = read + table[rows.stage] + places.sum(2)
    expected = gru(read, None, h0, weight, bias, lengths)
    results = [[x, *torch.autograd.grad((x * factor).sum(), arguments)] for x in (found, expected)]
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, **(EXACT if dtype == torch.float64 else SINGLE))
    assert not bool(results[0][1][[7, 10]].any())


def test_what_comes_after_the_end_can_be_anything() -> None:
    """Neither inputs nor gradients from there reach a result, not even if they are not finite."""
    for dtype in (torch.float64, torch.float32):
        inputs, h0 = torch.randn(5, 3, 48, dtype=dtype), torch.randn(3, 16, dtype=dtype)
        weight, bias = torch.randn(48, 16, dtype=dtype), torch.randn(16, dtype=dtype)
        lengths = torch.tensor([5, 3, 1])
        over = torch.arange(5)[:, None] >= lengths
        results = []
        for garbage in (0.0, float("inf")):
            leaves = [inputs.clone(), h0.clone(), weight.clone(), bias.clone()]
            leaves[0][over] = garbage
            for leaf in leaves:
                leaf.requires_grad_()
            hidden = gru(leaves[0], None, *leaves[1:], lengths)
            outward = torch.where(over[..., None], garbage, torch.ones_like(hidden))
            results.append([hidden, *torch.autograd.grad(hidden, leaves, outward)])
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)
        assert not bool(results[0][0][over].any())


def test_large_inputs_stay_finite() -> None:
    for width in (1, 16):
        rows = torch.tensor([[1e4, -1e4, 1e4], [-1e4, 1e4, -1e4]]).repeat_interleave(width, 1)
        inputs = rows[:, None].clone().requires_grad_()
        hidden = gru(inputs, None, torch.ones(1, width), torch.ones(3 * width, width), torch.ones(width))
        hidden.sum().backward()
        assert hidden.flatten().tolist() == [1.0] * 2 * width
        assert inputs.grad is not None
        assert bool(inputs.grad.isfinite().all())


@pytest.mark.parametrize("width", [2, 16])
def test_the_gradient_can_be_taken_twice(width: int) -> None:
    """Nothing that backward reads is overwritten by it."""
    inputs, h0 = torch.randn(3, 2, 3 * width).requires_grad_(), torch.randn(2, width)
    hidden = gru(inputs, None, h0, torch.randn(3 * width, width), torch.randn(width), torch.tensor([3, 1])).sum()
    first, again = (torch.autograd.grad(hidden, inputs, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)
