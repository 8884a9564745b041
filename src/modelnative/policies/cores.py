"""What carries an episode from one token to the next: GRU, Transformer, minGRU, or nothing. One contract for all.

A core turns packed inputs x, float [N, width], and its memory, a tensor with the batch first, into hidden states
[N, width] and the new memory. Packed means time first, step t having `sizes[t]` rows, never more than step t - 1, and
row i of step t continuing row i of step t - 1 (`torch.nn.utils.rnn.PackedSequence`). Acting is one step, learning is
the whole episode; both are the same call, so that they cannot drift apart. Row i of a result depends on row i of the
arguments alone. After sequences of different lengths the memory is that of the longest ones only.

`begin` makes the first memory of the sum of the context's embeddings, float [n, width]; a core that `attends` wants the
embeddings themselves, too, float [n, C, width].

Inputs are sums of rows of a table. `project` is the linear map that a core begins with, done to the table once instead
of to every sum; what `forward` is given are sums of rows of its result. A GRU with native kernels adds them up itself
(`sums`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from modelnative import native
from modelnative.policies.recurrence import gru, gru_of


class GRU(nn.Module):
    """Gated recurrent units (Cho et al., 2014). Memory: float [n, layers, width]."""

    attends = False

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList(GRULayer(width) for _ in range(layers))

    def begin(self, context: Tensor | None, summary: Tensor) -> Tensor:
        """The memory before the first token, from the sum of the context's embeddings, [n, width]."""
        return start(summary)[:, None].expand(-1, len(self.layers), -1)

    def project(self, table: Tensor, ever: int) -> Tensor:
        """The table, float [R, width], times the first layer's weight: [R, 3 width].

        Every input has exactly one of the first `ever` rows, so that the bias is added to those.
        """
        first = self.layer(0)
        rows = table @ first.weight.t()
        return torch.cat([rows[:ever] + first.bias, rows[ever:]])

    def forward(self, x: Tensor, memory: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        layer = self.layer(0)
        first = gru(x[None], memory[None, :, 0], layer.recurrent[None], layer.inner[None], sizes)[0]
        return self._further(first, memory, sizes)

    def sums(self, inputs: native.Inputs, table: Tensor, memory: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """As `forward`, from the rows that are to be added up; where `native.fits`."""
        layer = self.layer(0)
        return self._further(gru_of(inputs, table, memory[:, 0], layer.recurrent, layer.inner, sizes), memory, sizes)

    def _further(self, x: Tensor, memory: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """All layers but the first, whose hidden states x are."""
        after = [x[len(x) - sizes[-1] :]]
        for i in range(1, len(self.layers)):
            layer = self.layer(i)
            gates = torch.addmm(layer.bias, x, layer.weight.t())
            x = gru(gates[None], memory[None, :, i], layer.recurrent[None], layer.inner[None], sizes)[0]
            after.append(x[len(x) - sizes[-1] :])
        return x, torch.stack(after, 1)

    def layer(self, index: int) -> GRULayer:
        """A layer, typed."""
        return cast(GRULayer, self.layers[index])


class GRULayer(nn.Module):
    """The parameters of one layer, its gates in the order reset, update, candidate as in `torch.nn.GRU`.

    Args:
        inputs: I of them.
        width: of the hidden state; by default as many.

    Attributes:
        weight, recurrent: float [3 width, I] and [3 width, width], of the input and of the hidden state.
        bias: float [3 width].
        inner: float [width], the bias of the candidate's recurrent part, which the reset gate scales.
    """

    def __init__(self, inputs: int, width: int | None = None) -> None:
        super().__init__()
        width = width or inputs
        start = nn.GRUCell(inputs, width)
        for gate in start.weight_hh.data.chunk(3):
            nn.init.orthogonal_(gate)
        self.weight, self.recurrent, self.bias = start.weight_ih, start.weight_hh, start.bias_ih
        self.inner = nn.Parameter(start.bias_hh.data[-width:].clone())


def start(summary: Tensor) -> Tensor:
    """tanh, as 2σ(2x) − 1: a quarter of its time on a CPU."""
    return 2 * (2 * summary).sigmoid() - 1


def padded(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Packed [N, width] as [T, n, width], zero where sequences are over; and the lengths, int64 [n]."""
    return pad_packed_sequence(PackedSequence(x, torch.tensor(sizes)))


def packed(x: Tensor, lengths: Tensor) -> Tensor:
    """The inverse of `padded`."""
    return pack_padded_sequence(x, lengths).data


class MinGRU(nn.Module):
    """Layers of minGRU (Feng et al., 2024) with residual feed-forward. Memory: float [n, layers, width].

    Gate and candidate depend on the input alone, so that h_t = (1 - z_t) h_{t-1} + z_t c_t is a linear recurrence,
    solved for all t at once by a parallel scan.
    """

    attends = False

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(layers))
        self.mixers = nn.ModuleList(FeedForward(width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def begin(self, context: Tensor | None, summary: Tensor) -> Tensor:
        return start(summary)[:, None].expand(-1, len(self.gates), -1)

    def project(self, table: Tensor, ever: int) -> Tensor:
        return table

    def forward(self, x: Tensor, memory: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        after = []
        x, lengths = padded(x, sizes)
        for gate, mixer, norm, h0 in zip(self.gates, self.mixers, self.norms, memory.unbind(1), strict=True):
            update, candidate = gate(norm(x)).chunk(2, -1)
            z = update.sigmoid()
            h = scan(1 - z, z * candidate, h0)
            after.append(h[-1])
            x = mixer(x + h)
        return packed(self.last(x), lengths), torch.stack(after, 1)[: sizes[-1]]


def scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t for all t, in log2(T) steps (Hillis and Steele, 1986).

    Args:
        a, b: float [T, ...].
        h0: float [...], the state before t = 0.

    Example:
        >>> scan(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 1.0]), torch.tensor(2.0)).tolist()
        [2.0, 2.0]
    """
    reach = 1
    while reach < len(a):
        b = torch.cat([b[:reach], b[reach:] + a[reach:] * b[:-reach]])
        a = torch.cat([a[:reach], a[reach:] * a[:-reach]])
        reach *= 2
    return a * h0 + b


class FeedForward(nn.Module):
    """x + W2 gelu(W1 norm(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Transformer(nn.Module):
    """Decoder-only Transformer, pre-norm, with learned positions. Memory: the keys and values of every token so far.

    The context is the prefix of the sequence; `begin` computes its keys and values once. Memory: float
    [n, layers, 2, tokens so far, width].
    """

    attends = True

    def __init__(self, width: int, layers: int, heads: int, context: int, horizon: int) -> None:
        super().__init__()
        self.heads = heads
        self.context = context
        self.position = nn.Embedding(horizon, width)
        nn.init.normal_(self.position.weight, std=1 / math.sqrt(width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.mixers = nn.ModuleList(FeedForward(width) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def begin(self, context: Tensor | None, summary: Tensor) -> Tensor:
        assert context is not None, "see `attends`"
        n, _, width = context.shape
        empty = context.new_zeros(n, len(self.qkv), 2, 0, width)
        return self._attend(context + summary[:, None], empty)[1]

    def project(self, table: Tensor, ever: int) -> Tensor:
        return table

    def forward(self, x: Tensor, memory: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        x, lengths = padded(x, sizes)
        start = memory.shape[3] - self.context
        x = x + self.position.weight[start : start + len(x), None]
        hidden, memory = self._attend(x.transpose(0, 1), memory)
        return packed(hidden.transpose(0, 1), lengths), memory[: sizes[-1]]

    def _attend(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        n, tokens, width = x.shape
        past = memory.shape[3]
        age = torch.arange(past, past + tokens, device=x.device)[:, None]
        causal = torch.arange(past + tokens, device=x.device) <= age
        after = []
        for layer, (norm, qkv, out, mixer) in enumerate(zip(self.norms, self.qkv, self.out, self.mixers, strict=True)):
            query, new = qkv(norm(x)).split([width, 2 * width], -1)
            cache = torch.cat([memory[:, layer], new.view(n, tokens, 2, width).transpose(1, 2)], 2)
            split = (self.heads, width // self.heads)
            key, value = cache.unflatten(-1, split).transpose(2, 3).unbind(1)
            mixed = scaled_dot_product_attention(query.unflatten(-1, split).transpose(1, 2), key, value, causal)
            x = mixer(x + out(mixed.transpose(1, 2).flatten(2)))
            after.append(cache)
        return self.last(x), torch.stack(after, 1)


class Memoryless(nn.Module):
    """What a network without memory can do: each thought is of the context, the last token and its feedback alone.

    Memory: float [n, width], the sum of the context's embeddings, the same from the first token to the last.
    """

    attends = False

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.mixers = nn.ModuleList(FeedForward(width) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def begin(self, context: Tensor | None, summary: Tensor) -> Tensor:
        return summary

    def project(self, table: Tensor, ever: int) -> Tensor:
        return table

    def forward(self, x: Tensor, memory: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        x = x + torch.cat([memory[:size] for size in sizes])
        for mixer in self.mixers:
            x = mixer(x)
        return self.last(x), memory[: sizes[-1]]
