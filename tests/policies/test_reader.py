"""A context is read forwards and backwards, and copied from by what was read."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelnative.policies.config import PolicyConfig
from modelnative.policies.heads import QUERY, Heads
from modelnative.policies.policy import TokenPolicy
from modelnative.policies.reader import Reader
from modelnative.tasks import make_task

VOCABULARY, WIDTH, PADDING = 5, 8, 4
TEXTS = st.lists(st.lists(st.integers(0, PADDING - 1), min_size=1, max_size=6), min_size=1, max_size=4)


def padded(texts: list[list[int]]) -> torch.Tensor:
    return torch.tensor([text + [PADDING] * (6 - len(text)) for text in texts])


@given(TEXTS, st.integers(0, 10**6))
def test_it_reads_as_two_torch_grus_do(texts: list[list[int]], seed: int) -> None:
    torch.manual_seed(seed)
    reader, reference = Reader(VOCABULARY, WIDTH, PADDING).double(), torch.nn.GRU(WIDTH, WIDTH // 2, bidirectional=True)
    reference.double()
    for layer, name in zip(reader.directions, ("l0", "l0_reverse"), strict=True):
        getattr(reference, f"weight_ih_{name}").data = layer.weight.data
        getattr(reference, f"weight_hh_{name}").data = layer.recurrent.data
        getattr(reference, f"bias_ih_{name}").data = layer.bias.data
        inner = torch.zeros(3 * WIDTH // 2, dtype=torch.float64)
        inner[-WIDTH // 2 :] = layer.inner.data
        getattr(reference, f"bias_hh_{name}").data = inner
    context = padded(texts)
    read, summary = reader(context)
    expected = reference(reader.token(context.t()))[0].transpose(0, 1)
    torch.testing.assert_close(read, expected)
    for i, text in enumerate(texts):
        torch.testing.assert_close(summary[i, : WIDTH // 2], expected[i, len(text) - 1, : WIDTH // 2])
        torch.testing.assert_close(summary[i, WIDTH // 2 :], expected[i, 0, WIDTH // 2 :])


def test_a_text_of_padding_alone_is_read() -> None:
    read, summary = Reader(VOCABULARY, WIDTH, PADDING)(torch.full((2, 3), PADDING))
    assert read.shape == (2, 3, WIDTH)
    assert bool(summary.isfinite().all())


@given(TEXTS, st.integers(0, 10**6))
def test_pointing_equals_a_double_loop(texts: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    heads = Heads(WIDTH, VOCABULARY, 6, PADDING, copy=True, query=True).double().requires_grad_(False)
    context = padded(texts)
    for parameter in heads.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    hidden = torch.randn(len(texts), WIDTH, generator=generator, dtype=torch.float64)
    read = torch.randn(len(texts), 6, WIDTH, generator=generator, dtype=torch.float64)
    log_probs, value, copied = heads(hidden, context, heads.keys(read))
    for i, text in enumerate(texts):
        out, keys = heads.out(hidden[i]).tolist(), heads.key(read[i])
        query = torch.tensor(out[VOCABULARY + 1 :], dtype=torch.float64)
        written = [math.exp(x) for x in out[:VOCABULARY]]
        pointed = [math.exp(float(keys[place] @ query) / math.sqrt(QUERY)) for place in range(len(text))]
        total = sum(written) + sum(pointed)
        assert copied[i].tolist() == pytest.approx([p / total for p in pointed] + [0.0] * (6 - len(text)), abs=1e-9)
        chances = [
            (written[v] + sum(p for p, token in zip(pointed, text, strict=True) if token == v)) / total
            for v in range(VOCABULARY)
        ]
        assert log_probs[i].exp().tolist() == pytest.approx(chances, abs=1e-9)
        assert float(value[i]) == pytest.approx(out[VOCABULARY])


def test_it_knows_the_order_of_words() -> None:
    """A sum knows it too, of places; but the reader has no table that grows with the longest text."""
    task = make_task("expressions")
    shape = PolicyConfig(width=16, reader="gru")
    policy = TokenPolicy(task.spec, shape)
    one, other = (policy.initial_state(task.parse(1, text)) for text in ("1+2*3", "1*2+3"))
    assert not torch.allclose(one.core, other.core)
    assert one.keys.shape == (1, task.spec.context_length, QUERY)
    twelve = make_task("expressions", operators=12).spec
    ours, theirs = (TokenPolicy(spec, shape).context.parameters() for spec in (task.spec, twelve))
    assert [p.shape for p in ours] == [p.shape for p in theirs]
