from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelnative.policies.heads import Heads

WIDTH, VOCABULARY, PADDING = 6, 5, 4


def heads(copy: bool = True, context: int = 4, seed: int = 0, scale: float = 1.0) -> Heads:
    made = Heads(WIDTH, VOCABULARY, context, PADDING, copy).double()
    generator = torch.Generator().manual_seed(seed)
    made.out.weight.data = scale * torch.randn(made.out.weight.shape, generator=generator, dtype=torch.float64)
    made.out.bias.data = scale * torch.randn(made.out.bias.shape, generator=generator, dtype=torch.float64)
    return made


def naive(module: Heads, hidden: Tensor, context: list[int]) -> tuple[list[float], list[float], list[float]]:
    """One hidden state: the probability of each token, its part that is generated, and that of each position."""
    out = module.out(hidden).tolist()
    write, by_place, by_content = out[:VOCABULARY], out[VOCABULARY + 1 : -VOCABULARY], out[-VOCABULARY:]
    generated = [math.exp(x) for x in write]
    copied = [
        0.0 if token == PADDING else math.exp(by_place[place] + by_content[token])
        for place, token in enumerate(context)
    ]
    total = sum(generated) + sum(copied)
    chances = [
        (generated[token] + sum(c for c, there in zip(copied, context, strict=True) if there == token)) / total
        for token in range(VOCABULARY)
    ]
    return chances, [g / total for g in generated], [c / total for c in copied]


CONTEXTS = st.lists(st.integers(0, VOCABULARY - 1), min_size=4, max_size=4)


@given(st.lists(CONTEXTS, min_size=1, max_size=5), st.integers(0, 10**6))
def test_the_copy_head_equals_a_double_loop(contexts: list[list[int]], seed: int) -> None:
    module = heads(seed=seed).requires_grad_(False)
    hidden = torch.randn(3, len(contexts), WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = module(hidden.flatten(0, 1), torch.tensor(contexts))
    log_probs, value, copied = (tensor.unflatten(0, hidden.shape[:2]) for tensor in found)
    for t in range(3):
        for i, context in enumerate(contexts):
            chances, generated, places = naive(module, hidden[t, i], context)
            assert log_probs[t, i].exp().tolist() == pytest.approx(chances, abs=1e-11)
            assert copied[t, i].tolist() == pytest.approx(places, abs=1e-11)
            assert float(copied[t, i].sum()) + sum(generated) == pytest.approx(1.0)
            assert float(value[t, i]) == pytest.approx(float(module.out(hidden[t, i])[VOCABULARY]))
            assert all(copied[t, i, place] == 0 for place, token in enumerate(context) if token == PADDING)


def test_duplicates_add_up() -> None:
    """A token that stands twice in the context is as probable as both places together."""
    module = heads()
    module.out.weight.data.zero_()
    module.out.bias.data.zero_()
    log_probs, _, copied = module(torch.zeros(1, WIDTH, dtype=torch.float64), torch.tensor([[2, 2, 0, PADDING]]))
    # Eight equal ways: five to generate, three to copy.
    assert log_probs.exp()[0].tolist() == pytest.approx([2 / 8, 1 / 8, 3 / 8, 1 / 8, 1 / 8])
    assert copied[0].tolist() == pytest.approx([1 / 8, 1 / 8, 1 / 8, 0])


def test_padding_is_never_copied_however_loud() -> None:
    module = heads()
    module.out.bias.data[-VOCABULARY + PADDING] = 1e4  # the content score of the padding token
    copied = module(torch.zeros(1, WIDTH, dtype=torch.float64), torch.tensor([[1, 2, PADDING, PADDING]]))[2]
    assert copied[0, 2:].tolist() == [0, 0]
    assert bool((copied[0, :2] > 0).all())


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_certainty_has_finite_logarithms_and_gradients(copy: bool, scale: float) -> None:
    module = heads(copy, scale=scale).float()
    hidden = torch.randn(16, WIDTH, requires_grad=True)
    log_probs, value, _ = module(hidden, torch.tensor([[0, 1, 1, PADDING], [2, PADDING, PADDING, PADDING]]))
    (log_probs.sum() + value.sum()).backward()
    assert bool(log_probs.isfinite().all())
    assert bool(hidden.grad.isfinite().all())
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(16))


def test_without_copy_head_the_context_is_ignored() -> None:
    module = heads(copy=False)
    hidden = torch.randn(6, WIDTH, dtype=torch.float64)
    first, second = (module(hidden, torch.randint(4, (3, 4))) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert first[2].shape == (6, 0)
    assert first[0].exp().sum(-1).allclose(torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("query", [True, False])
@pytest.mark.parametrize("copy", [True, False])
def test_only_what_is_selected_is_computed(query: bool, copy: bool) -> None:
    module = Heads(WIDTH, VOCABULARY, 4, PADDING, copy, query).double()
    hidden, context = torch.randn(12, WIDTH, dtype=torch.float64), torch.randint(VOCABULARY, (3, 4))
    keys = module.keys(torch.randn(3, 4, WIDTH, dtype=torch.float64)) if module.query else None
    selected = torch.tensor([1, 2, 5, 11])
    for whole, some in zip(module(hidden, context, keys), module(hidden, context, keys, selected), strict=True):
        torch.testing.assert_close(some, whole[selected])


def test_fresh_heads_are_nearly_indifferent() -> None:
    """A uniform start explores; the copy head has a share in proportion to the places it can copy from."""
    fresh = Heads(64, 18, 6, 17, True).requires_grad_(False)
    log_probs, value, copied = fresh(torch.randn(100, 64), torch.full((100, 6), 3))
    assert copied.mean() == pytest.approx(1 / 24, rel=0.05)
    assert log_probs[:, 4].exp().mean() == pytest.approx(1 / 24, rel=0.05)
    assert log_probs[:, 3].exp().mean() == pytest.approx(7 / 24, rel=0.05)
    assert value.abs().max() < 0.2
