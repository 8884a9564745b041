"""The kernels of the Transformer against their plain definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelnative import native
from modelnative.native import operators
from modelnative.native.transformer import TransformerCall
from modelnative.policies.cores.attention import (
    LayerWeights,
    cached_transformer_layer,
    continued_layer,
    transformer_layer,
)

pytestmark = pytest.mark.skipif(not native.enabled(), reason=f"kernels: {native.describe()}")

SEEDS = st.integers(0, 10**6)
WIDTH = 32


def normal(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def layer_weights(draw: Callable[..., Tensor], width: int = WIDTH, inner: int = 64) -> LayerWeights:
    shapes = [(width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,)]
    shapes += [(width,), (width,), (inner, width), (inner,), (width, inner), (width,)]
    return LayerWeights(*((0.4 * draw(*shape)).requires_grad_() for shape in shapes))


def in_double(weights: LayerWeights) -> LayerWeights:
    return LayerWeights(*(weight.detach().double().requires_grad_() for weight in vars(weights).values()))


def computes(operator: Callable[..., Any], *arguments: Any) -> bool:
    kernel = operators.KERNELS[operator.__name__]
    return kernel.supports(*kernel.flatten(*arguments))


def close(found: Tensor, exact: Tensor) -> None:
    scale = float(exact.detach().abs().max()) + 1e-3
    torch.testing.assert_close(found.double() / scale, exact / scale, rtol=0, atol=1e-5)


@given(
    SEEDS, st.integers(1, 60), st.integers(1, 20), st.sampled_from(["none", "sorted", "any"]), st.sampled_from([1, 2])
)
@settings(deadline=None, max_examples=25)
def test_a_layer(seed: int, n: int, steps: int, ends: str, heads: int) -> None:
    """In values and gradients, against double precision. Sequences may end in any order."""
    check_layer(seed, n, steps, ends, heads)


@pytest.mark.parametrize("steps", [47, 48, 49, 150])
def test_a_layer_over_long_sequences(steps: int) -> None:
    """Queries are taken some at a time, and a block may have one sequence alone."""
    check_layer(steps, 3, steps, "sorted", 2)


def check_layer(seed: int, n: int, steps: int, ends: str, heads: int) -> None:
    draw = normal(seed)
    lengths = torch.randint(1, steps + 1, (n,), generator=torch.Generator().manual_seed(seed))
    kinds = {"none": None, "any": lengths, "sorted": lengths.sort(descending=True).values}
    x, weights, above = draw(steps, n, WIDTH).requires_grad_(), layer_weights(draw), draw(steps, n, WIDTH)
    assert computes(transformer_layer, x, weights, heads, kinds[ends])
    exact = x.detach().double().requires_grad_(), in_double(weights)
    outcomes = []
    for inputs, parameters in ((x, weights), exact):
        y = transformer_layer(inputs, parameters, heads, kinds[ends])
        total = (y * above.to(y.dtype)).sum()
        outcomes.append([y, *torch.autograd.grad(total, [inputs, *vars(parameters).values()])])
    for found, expected in zip(*outcomes, strict=True):
        close(found, expected)


@given(SEEDS, st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
@settings(deadline=None, max_examples=25)
def test_a_layer_with_a_cache(seed: int, n: int, first: int, second: int) -> None:
    """Some tokens, then others, one of them or more: as the plain definition, the cache included."""
    draw = normal(seed)
    weights, room = layer_weights(draw), first + second + 3
    ours, theirs = (tuple(torch.full((n, room, WIDTH), torch.nan, dtype=kind) for _ in range(2)) for kind in KINDS)
    with torch.no_grad():
        for past, more in ((0, first), (first, second), (first + second, 1)):
            x = draw(more, n, WIDTH)
            assert computes(cached_transformer_layer, x, *ours, past, weights, 2)
            found = cached_transformer_layer(x, *ours, past, weights, 2)
            close(found, continued_layer(x.double(), *theirs, past, in_double(weights), 2))
            for mine, exact in zip(ours, theirs, strict=True):
                close(mine[:, : past + more], exact[:, : past + more])
                assert bool(mine[:, past + more :].isnan().all())


KINDS = (torch.float32, torch.float64)


def test_rows_and_threads_change_nothing_to_the_bit() -> None:
    """A sequence alone, or as one of many, is the same; so is everything with another number of threads."""
    draw = normal(0)
    n, steps = 37, 13
    x, weights, above = draw(steps, n, WIDTH).requires_grad_(), layer_weights(draw), draw(steps, n, WIDTH)
    lengths = torch.randint(1, steps + 1, (n,), generator=torch.Generator().manual_seed(0))
    whole = []
    for threads in (1, 2, 3):
        with operators.kernel_threads(threads):
            y = transformer_layer(x, weights, 2, lengths)
            gradients = torch.autograd.grad((y * above).sum(), [x, *vars(weights).values()])
        whole.append([y, *gradients])
    assert all(torch.equal(a, b) for other in whole[1:] for a, b in zip(whole[0], other, strict=True))
    for row in range(0, n, 5):
        one = slice(row, row + 1)
        alone = x[:, one].detach().requires_grad_()
        y = transformer_layer(alone, weights, 2, lengths[one])
        assert torch.equal(y, whole[0][0][:, one])
        assert torch.equal(torch.autograd.grad((y * above[:, one]).sum(), alone)[0], whole[0][1][:, one])


def test_a_row_of_the_cache_is_the_same_to_the_bit_whatever_stands_beside_it() -> None:
    draw = normal(0)
    weights, x, more = layer_weights(draw), draw(5, 50, WIDTH), draw(1, 50, WIDTH)
    with torch.no_grad():
        caches = [torch.empty(50, 9, WIDTH) for _ in range(2)]
        both = [cached_transformer_layer(part, *caches, past, weights, 2) for part, past in ((x, 0), (more, 5))]
        for row in range(0, 50, 7):
            one, own = slice(row, row + 1), [torch.empty(1, 9, WIDTH) for _ in range(2)]
            for part, past, expected in ((x, 0, both[0]), (more, 5, both[1])):
                found = cached_transformer_layer(part[:, one].contiguous(), *own, past, weights, 2)
                assert torch.equal(found, expected[:, one])


def test_the_plain_definition_computes_what_the_kernel_cannot() -> None:
    """In double precision, with heads that no vector divides, and without a sequence."""
    draw = normal(0)
    x, weights = draw(3, 2, WIDTH), layer_weights(draw)
    assert not computes(transformer_layer, x.double(), in_double(weights), 1, None)
    assert not computes(transformer_layer, x, weights, WIDTH, None)
    assert not computes(transformer_layer, draw(3, 0, WIDTH), weights, 1, None)
    assert transformer_layer(x, weights, WIDTH).isfinite().all()
    assert transformer_layer(draw(3, 0, WIDTH), weights, 1).shape == (3, 0, WIDTH)


def test_a_struct_of_another_size_is_noticed() -> None:
    class Longer(TransformerCall):
        _fields_ = operators.struct_fields("", "more")

    with pytest.raises(AssertionError, match="Longer is not the struct that C"):
        Longer().run("transformer_forward")
