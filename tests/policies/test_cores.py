from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modelnative.policies.cores import GRU, MinGRU, Transformer, scan


def same(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


def run(core, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """A core over sequences of one length, x float [T, n, width]; each input is a row of its own."""
    steps, n, _ = x.shape
    hidden, memory = core(core.project(x.flatten(0, 1), steps * n), memory, [n] * steps)
    return hidden.unflatten(0, (steps, n)), memory


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("steps", range(1, 21))
def test_scan_equals_the_loop(steps: int) -> None:
    a, b, h = draw(steps, 3, 4, seed=1).sigmoid(), draw(steps, 3, 4, seed=2), draw(3, 4, seed=3)
    kept = a.clone(), b.clone(), h.clone()
    found = scan(a, b, h)
    for t in range(steps):
        h = a[t] * h + b[t]
        same(found[t], h)
    assert torch.equal(a, kept[0])
    assert torch.equal(b, kept[1])


def test_scan_has_the_gradient_of_the_loop() -> None:
    a, b, h0 = (draw(*shape, seed=i).requires_grad_() for i, shape in enumerate([(9, 2), (9, 2), (2,)]))
    weight = draw(9, 2, seed=5)
    found = torch.autograd.grad((scan(a, b, h0) * weight).sum(), (a, b, h0))
    h, total = h0, torch.zeros((), dtype=torch.float64)
    for t in range(9):
        h = a[t] * h + b[t]
        total = total + (h * weight[t]).sum()
    for left, right in zip(found, torch.autograd.grad(total, (a, b, h0)), strict=True):
        same(left, right)


def test_scan_survives_gates_that_are_shut() -> None:
    """Zeros in `a` wipe the past; a scan through logarithms or quotients would give NaN."""
    a = torch.ones(6, 1)
    a[3] = 0.0
    assert scan(a, torch.ones(6, 1), torch.tensor([10.0]))[:, 0].tolist() == [11, 12, 13, 1, 2, 3]


def test_the_gru_is_the_published_one() -> None:
    """Cho et al. (2014) in PyTorch's form, written out for one layer, from a memory that is not zero."""
    core, width = GRU(4, 1).double(), 4
    x, h = draw(5, 3, 4), draw(3, 4, seed=1)
    found, memory = run(core, x, h[:, None])
    layer = core.layer(0)
    for t in range(5):
        left = x[t] @ layer.weight.T + layer.bias
        right = h @ layer.recurrent.T + torch.nn.functional.pad(layer.inner, (2 * width, 0))
        reset, update = (left + right)[:, : 2 * width].sigmoid().chunk(2, -1)
        candidate = (left[:, 2 * width :] + reset * right[:, 2 * width :]).tanh()
        h = (1 - update) * candidate + update * h
        same(found[t], h)
    same(memory[:, 0], h)


@pytest.mark.parametrize("core", [GRU(8, 1), GRU(8, 3), MinGRU(8, 1), MinGRU(8, 3)], ids=["gru", "gru3", "min", "min3"])
def test_a_recurrent_memory_has_the_batch_first(core) -> None:
    core = core.double()
    layers = len(core.layers if isinstance(core, GRU) else core.gates)
    memory = core.begin(draw(5, 6, 8), draw(5, 8))
    assert memory.shape == (5, layers, 8)
    hidden, after = run(core, draw(4, 5, 8, seed=2), memory)
    assert hidden.shape == (4, 5, 8)
    assert after.shape == (5, layers, 8)


# Transformer


def transformer(layers: int = 2, heads: int = 2) -> Transformer:
    torch.manual_seed(3)
    core = Transformer(8, layers, heads, context=3, horizon=7).double()
    for parameter in core.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return core


def naive(core: Transformer, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Attention row by row, head by head, over the whole sequence [n, L, width]; also keys and values."""
    _, length, width = tokens.shape
    size = width // core.heads
    caches = []
    for norm, qkv, out, mixer in zip(core.norms, core.qkv, core.out, core.mixers, strict=True):
        query, key, value = qkv(norm(tokens)).chunk(3, -1)
        caches.append(torch.stack([key, value], 1))
        mixed = torch.zeros_like(tokens)
        for head in range(core.heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(length):
                score = (query[:, i : i + 1, part] * key[:, : i + 1, part]).sum(-1) / size**0.5
                mixed[:, i, part] = (score.softmax(-1)[..., None] * value[:, : i + 1, part]).sum(1)
        tokens = mixer(tokens + out(mixed))
    return core.last(tokens), torch.stack(caches, 1)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_transformer_equals_a_naive_one(layers: int, heads: int) -> None:
    core = transformer(layers, heads)
    context, summary, x = draw(4, 3, 8), draw(4, 8, seed=1), draw(5, 4, 8, seed=2)
    hidden, memory = run(core, x, core.begin(context, summary))
    written = x.transpose(0, 1) + core.position.weight[:5]
    expected, caches = naive(core, torch.cat([context + summary[:, None], written], 1))
    same(hidden, expected[:, 3:].transpose(0, 1))
    same(memory, caches)


def test_the_cache_grows_and_its_past_stands() -> None:
    core = transformer()
    memory = core.begin(draw(4, 3, 8), draw(4, 8, seed=1))
    assert memory.shape == (4, 2, 2, 3, 8)
    x = draw(7, 4, 8, seed=2)
    whole = run(core, x, memory)[1]
    for t in range(7):
        before = memory
        _, memory = run(core, x[t : t + 1], memory)
        assert memory.shape == (4, 2, 2, 4 + t, 8)
        assert torch.equal(memory[:, :, :, :-1], before)
    same(memory, whole)


def test_the_transformer_acts_on_its_cache() -> None:
    """What is in the cache decides: a donor's keys and values bring the donor's next hidden state."""
    core = transformer()
    _, memory = run(core, draw(3, 4, 8, seed=2), core.begin(draw(4, 3, 8), draw(4, 8, seed=1)))
    x = draw(1, 1, 8, seed=4).expand(1, 4, 8)
    plain, swapped = run(core, x, memory)[0], run(core, x, memory[[1, 0, 2, 3]])[0]
    same(swapped, plain[:, [1, 0, 2, 3]])
    assert (plain[0, 0] - plain[0, 1]).abs().max() > 1e-3


def test_the_transformer_knows_where_it_is() -> None:
    """The same token twice is not the same: the position is that in the episode, also when acting."""
    core = transformer(layers=1)
    memory = core.begin(draw(1, 3, 8), draw(1, 8, seed=1))
    x = draw(1, 1, 8, seed=2)
    first, after = run(core, x, memory)
    core.position.weight.data[1, 0] += 1.0
    assert torch.equal(run(core, x, memory)[0], first)
    moved = run(core, x, after)[0]
    core.position.weight.data[1, 0] -= 1.0
    assert (run(core, x, after)[0] - moved).abs().max() > 1e-3
