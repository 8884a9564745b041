"""The Transformer core."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from modelnative.policies.config import PolicyConfig
from modelnative.policies.core import Core, InputRows
from modelnative.policies.cores.attention import (
    LayerWeights,
    attention_weights,
    cached_transformer_layer,
    continued_layer,
    transformer_layer,
)
from modelnative.policies.cores.feed_forward import FeedForward
from modelnative.tasks.contract.task import TaskSpec

ROOM = 16  # tokens that a new cache has room for, beside the context


@dataclass
class KeyValueCache:
    """What the Transformer has read in n episodes: a value, although to continue it usually writes in place.

    Attributes:
        prefix: float [n, C, width], the embeddings of the context, which are read together with the first token.
        layers: for each layer keys and values, float [n, capacity, width] each; at first none.
        tokens: how many of the places are in use, the context's among them.
        written: [the number of places that have been written to], shared by all caches that share `layers`.
    """

    prefix: Tensor
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    tokens: int = 0
    written: list[int] = field(default_factory=lambda: [0])

    @property
    def keys_values(self) -> Tensor:
        """The keys and values of every token so far: float [n, layers, 2, tokens, width]; after the first token."""
        return torch.stack([torch.stack(pair, 1) for pair in self.layers], 1)[..., : self.tokens, :]

    def select_rows(self, rows: Tensor) -> KeyValueCache:
        """Some of the episodes, int64 [m]."""
        layers = [(keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in self.layers]
        return KeyValueCache(self.prefix.index_select(0, rows), layers, self.tokens, [self.tokens])

    def extended(self, layers: int, more: int, limit: int, copied: bool) -> KeyValueCache:
        """The same with room for `more` tokens, which count from now on.

        Args:
            layers: how many layers there are.
            more: how many tokens.
            limit: the most tokens that there can ever be.
            copied: whether it must not share memory with this one.
        """
        tokens, (n, context, width) = self.tokens + more, self.prefix.shape
        capacity = self.layers[0][1].shape[1] if self.layers else 0
        pairs, written = self.layers, self.written
        if copied or capacity < tokens or written[0] != self.tokens:
            if capacity < tokens:
                capacity = max(tokens, min(limit, 2 * capacity or context + ROOM))
            pairs, written = [], [0]
            for layer in range(layers):
                keys, values = (self.prefix.new_zeros(n, capacity, width) for _ in range(2))
                if self.layers:
                    old_keys, old_values = self.layers[layer]
                    keys[:, : self.tokens], values[:, : self.tokens] = (
                        old_keys[:, : self.tokens],
                        old_values[:, : self.tokens],
                    )
                pairs.append((keys, values))
        written[0] = tokens
        return KeyValueCache(self.prefix, pairs, tokens, written)


class Transformer(Core):
    """Decoder-only Transformer, pre-norm, with learned positions (Vaswani et al., 2017).

    The context is the prefix of the sequence. State: a `KeyValueCache`.
    """

    recipe: ClassVar[dict[str, Any]] = {"optimizer": {"learning_rate": 1e-3}, "loss": {"hint_weight": 0.2}}
    parallel: ClassVar[bool] = True
    default_layers: ClassVar[int] = 2
    reads_context: ClassVar[bool] = True

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

    @classmethod
    def build(cls, spec: TaskSpec, config: PolicyConfig) -> Self:
        return cls(config.width, config.layers or cls.default_layers, config.heads, spec.context_length, spec.horizon)

    def initial_state(self, summary: Tensor, context: Tensor | None) -> KeyValueCache:
        assert context is not None, "the context's embeddings are needed; see `reads_context`"
        return KeyValueCache(context + summary[:, None])

    def forward(self, x: Tensor, state: KeyValueCache) -> tuple[Tensor, KeyValueCache]:
        tokens, past, learns = self._placed(x, state), state.tokens, torch.is_grad_enabled()
        limit = self.context + len(self.position.weight)
        after = state.extended(len(self.qkv), len(tokens), limit, copied=learns)
        layer = continued_layer if learns else cached_transformer_layer
        for weights, (keys, values) in zip(self._weights(), after.layers, strict=True):
            tokens = layer(tokens, keys, values, past, weights, self.heads)
        return self.last(tokens[-len(x) :]), after

    def read(
        self, table: Tensor, rows: InputRows, state: KeyValueCache, lengths: Tensor | None
    ) -> tuple[Tensor, KeyValueCache]:
        x = rows.sum(table)
        if lengths is None or state.tokens:
            return self(x, state)
        tokens, lengths = self._placed(x, state), lengths + self.context
        for weights in self._weights():
            tokens = transformer_layer(tokens, weights, self.heads, lengths)
        return self.last(tokens[self.context :]), state

    def attention(self, x: Tensor, state: KeyValueCache) -> Tensor:
        tokens, past = self._placed(x, state), state.tokens
        limit = self.context + len(self.position.weight)
        after = state.extended(len(self.qkv), len(tokens), limit, copied=True)
        found = []
        for weights, (keys, values) in zip(self._weights(), after.layers, strict=True):
            before = tokens
            tokens = continued_layer(tokens, keys, values, past, weights, self.heads)
            found.append(attention_weights(before, keys, past, weights, self.heads)[-len(x) :])
        return torch.stack(found, 2)

    def _placed(self, x: Tensor, state: KeyValueCache) -> Tensor:
        """Inputs with their positions, after the context if that was not read yet: float [T or C + T, n, width]."""
        start = max(0, state.tokens - self.context)
        x = x + self.position.weight[start : start + x.shape[0], None]
        return x if state.tokens else torch.cat([state.prefix.transpose(0, 1), x])

    def _weights(self) -> list[LayerWeights]:
        layers = []
        for norm, qkv, out, module in zip(self.norms, self.qkv, self.out, self.mixers, strict=True):
            mixer = cast(FeedForward, module)
            parts: tuple[nn.Module, ...] = (norm, qkv, out, mixer.norm, mixer.up, mixer.down)
            layers.append(LayerWeights(*(x for part in parts for x in part.parameters())))
        return layers
