"""The Transformer core."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from modelnative.policies.config import PolicyConfig
from modelnative.policies.core import Core
from modelnative.policies.cores.feed_forward import FeedForward
from modelnative.tasks.contract.task import TaskSpec


class Transformer(Core):
    """Decoder-only Transformer, pre-norm, with learned positions (Vaswani et al., 2017).

    The context is the prefix of the sequence; `initial_state` computes its keys and values once. State: the keys and
    values of every token so far, float [n, layers, 2, tokens, width].
    """

    recipe: ClassVar[dict[str, Any]] = {"optimizer": {"learning_rate": 1e-3}}
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

    def initial_state(self, summary: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None, "the context's embeddings are needed; see `reads_context`"
        n, _, width = context.shape
        empty = context.new_zeros(n, len(self.qkv), 2, 0, width)
        return self._attend(context + summary[:, None], empty)[1]

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        start = state.shape[3] - self.context
        x = x + self.position.weight[start : start + len(x), None]
        hidden, state = self._attend(x.transpose(0, 1), state)
        return hidden.transpose(0, 1), state

    def _attend(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """All layers over new tokens x, float [n, tokens, width], that see the earlier ones and each other causally."""
        n, tokens, width = x.shape
        past = state.shape[3]
        age = torch.arange(past, past + tokens, device=x.device)[:, None]
        causal = torch.arange(past + tokens, device=x.device) <= age
        after = []
        for layer, (norm, qkv, out, mixer) in enumerate(zip(self.norms, self.qkv, self.out, self.mixers, strict=True)):
            query, new = qkv(norm(x)).split([width, 2 * width], -1)
            cache = torch.cat([state[:, layer], new.view(n, tokens, 2, width).transpose(1, 2)], 2)
            split = (self.heads, width // self.heads)
            key, value = cache.unflatten(-1, split).transpose(2, 3).unbind(1)
            mixed = scaled_dot_product_attention(query.unflatten(-1, split).transpose(1, 2), key, value, causal)
            x = mixer(x + out(mixed.transpose(1, 2).flatten(2)))
            after.append(cache)
        return self.last(x), torch.stack(after, 1)
