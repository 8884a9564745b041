from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modelnative.policies.config import PolicyConfig
from modelnative.policies.core import InputRows
from modelnative.policies.cores import attention as module
from modelnative.policies.cores.gru import GRU
from modelnative.policies.cores.memoryless import Memoryless
from modelnative.policies.cores.mingru import MinGRU, scan
from modelnative.policies.cores.transformer import Transformer
from modelnative.policies.policy import TokenPolicy
from modelnative.tasks import make_task


def same(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


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
    """Cho et al. (2014) in PyTorch's form, written out for one layer, from a state that is not zero."""
    core, width = GRU(4, 1).double(), 4
    x, h = draw(5, 3, 4), draw(3, 4, seed=1)
    found, state = core(x, h[:, None])
    layer = core.layer(0)
    for t in range(5):
        left = x[t] @ layer.weight.T + layer.bias
        right = h @ layer.recurrent.T + torch.nn.functional.pad(layer.inner, (2 * width, 0))
        reset, update = (left + right)[:, : 2 * width].sigmoid().chunk(2, -1)
        candidate = (left[:, 2 * width :] + reset * right[:, 2 * width :]).tanh()
        h = (1 - update) * candidate + update * h
        same(found[t], h)
    same(state[:, 0], h)


@pytest.mark.parametrize("core", [GRU(8, 1), GRU(8, 3), MinGRU(8, 1), MinGRU(8, 3)], ids=["gru", "gru3", "min", "min3"])
def test_a_recurrent_state_has_the_batch_first(core) -> None:
    core = core.double()
    layers = len(core.layers if isinstance(core, GRU) else core.gates)
    state = core.initial_state(draw(5, 8), None)
    assert state.shape == (5, layers, 8)
    hidden, after = core(draw(4, 5, 8, seed=2), state)
    assert hidden.shape == (4, 5, 8)
    assert after.shape == (5, layers, 8)


@pytest.mark.parametrize("core", [GRU(8, 2), MinGRU(8, 2), Memoryless(8, 2)], ids=["gru", "mingru", "memoryless"])
def test_reading_rows_of_a_table_equals_reading_their_sums(core) -> None:
    """`read`, of what `input_table` gives, is `forward` of the sums of embeddings; one row is always there."""
    core = core.double()
    embeddings, generator = draw(13, 8), torch.Generator().manual_seed(2)
    tokens, shown = (torch.randint(5, shape, generator=generator) for shape in ((6, 4), (6, 4, 1)))
    rows = InputRows(tokens, torch.tensor([5, 6, 7, 5]), shown, 8, 5, blank=4)
    state = core.initial_state(draw(4, 8, seed=1), None)
    found = core.read(core.input_table(embeddings, always=5), rows, state, None)
    place = embeddings[8 + shown[..., 0]].masked_fill(shown == 4, 0.0)
    x = embeddings[tokens] + embeddings[rows.stage] + place
    for left, right in zip(found, core(x, state), strict=True):
        same(left, right)
    same(rows.sum(embeddings), x)


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
    hidden, state = core(x, core.initial_state(summary, context))
    written = x.transpose(0, 1) + core.position.weight[:5]
    expected, caches = naive(core, torch.cat([context + summary[:, None], written], 1))
    same(hidden, expected[:, 3:].transpose(0, 1))
    same(state.keys_values, caches)


@pytest.mark.parametrize("learns", [True, False])
def test_the_cache_grows_and_its_past_stands(learns: bool) -> None:
    """Also beyond the room that it began with."""
    core = Transformer(8, 2, 2, context=3, horizon=40).double()
    with torch.set_grad_enabled(learns):
        state = core.initial_state(draw(4, 8, seed=1), draw(4, 3, 8))
        assert state.tokens == 0
        x = draw(40, 4, 8, seed=2)
        hidden, whole = core(x, state)
        assert whole.keys_values.shape == (4, 2, 2, 43, 8)
        assert len({keys.shape[1] for keys, _ in whole.layers}) == 1
        for t in range(40):
            before, kept = state, state.keys_values.clone() if t else None
            acted, state = core(x[t : t + 1], state)
            same(acted[0], hidden[t])
            assert state.tokens == 4 + t
            assert kept is None or torch.equal(state.keys_values[:, :, :, :-1], kept)
            assert kept is None or torch.equal(before.keys_values, kept)
        same(state.keys_values, whole.keys_values)


def test_a_rollout_writes_its_cache_in_place() -> None:
    """Each token is written once; a second continuation of the same state, or one that learns, takes a copy."""
    core = transformer()
    with torch.no_grad():
        _, state = core(draw(1, 4, 8, seed=2), core.initial_state(draw(4, 8, seed=1), draw(4, 3, 8)))
        _, after = core(draw(1, 4, 8, seed=3), state)
        assert after.layers is state.layers
        _, other = core(draw(1, 4, 8, seed=4), state)
        assert other.layers is not state.layers
    assert core(draw(1, 4, 8, seed=3), after)[1].layers is not after.layers


def test_the_transformer_acts_on_its_cache() -> None:
    """What is in the cache decides: a donor's keys and values bring the donor's next hidden state."""
    core = transformer()
    _, state = core(draw(3, 4, 8, seed=2), core.initial_state(draw(4, 8, seed=1), draw(4, 3, 8)))
    x = draw(1, 1, 8, seed=4).expand(1, 4, 8)
    donors = torch.tensor([1, 0, 2, 3])
    plain, swapped = core(x, state)[0], core(x, state.select_rows(donors))[0]
    same(swapped, plain[:, donors])
    assert (plain[0, 0] - plain[0, 1]).abs().max() > 1e-3


def test_the_transformer_knows_where_it_is() -> None:
    """The same token twice is not the same: the position is that in the episode, also when acting."""
    core = transformer(layers=1)
    state = core.initial_state(draw(1, 8, seed=1), draw(1, 3, 8))
    x = draw(1, 1, 8, seed=2)
    first, after = core(x, state)
    core.position.weight.data[1, 0] += 1.0
    assert torch.equal(core(x, state)[0], first)
    moved = core(x, after)[0]
    core.position.weight.data[1, 0] -= 1.0
    assert (core(x, after)[0] - moved).abs().max() > 1e-3


def test_attention_weights_are_those_that_the_layer_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighted sums of the values are what torch's attention gives; step by step and at once they are the same."""
    mixed: list[tuple[torch.Tensor, torch.Tensor]] = []
    attend = module.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: torch.Tensor) -> torch.Tensor:
        mixed.append((value, attend(query, key, value, causal)))
        return mixed[-1][1]

    monkeypatch.setattr(module, "scaled_dot_product_attention", watched)
    task = make_task("arithmetic")
    policy = TokenPolicy(task.spec, PolicyConfig(width=16, heads=2, layers=2), Transformer)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        problems = task.sample(torch.tensor([0, 2, 1]), torch.Generator().manual_seed(0))
        tokens = torch.randint(0, 10, (5, 3), generator=torch.Generator().manual_seed(2))
        feedback = torch.randint(0, 10, (5, 3, task.spec.feedback_width), generator=torch.Generator().manual_seed(3))
        state = policy.initial_state(problems)
        weights = policy.attention(tokens, feedback, state)
        places = task.spec.context_length
        assert weights is not None
        assert weights.shape == (5, 3, 2, 2, places + 5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, 3, 2, 2))
        for layer, (value, output) in enumerate(mixed):
            found = torch.einsum("tnhs,nhsd->nhtd", weights[:, :, layer], value)
            torch.testing.assert_close(found, output[:, :, places:])
        for t in range(5):
            step = policy.attention(tokens[t : t + 1], feedback[t : t + 1], state)
            assert step is not None
            torch.testing.assert_close(step[0], weights[t, ..., : places + t + 1])
            before = policy(tokens[t : t + 1], feedback[t : t + 1], state)
            again = policy(tokens[t : t + 1], feedback[t : t + 1], state)
            assert torch.equal(before.logits, again.logits), "looking changes nothing"
            state = again.state


def test_other_cores_have_no_attention() -> None:
    task = make_task("arithmetic")
    problems = task.sample(torch.tensor([0]), torch.Generator().manual_seed(0))
    policy = TokenPolicy(task.spec, PolicyConfig(width=8))
    first = torch.full((1, 1), task.spec.start), task.feedback(task.begin(problems))[None]
    assert policy.attention(*first, policy.initial_state(problems)) is None
