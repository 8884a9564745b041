"""A core without a state, to see which tasks need none."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from modelnative.policies.core import Core
from modelnative.policies.cores.feed_forward import FeedForward


class Memoryless(Core):
    """Feed-forward layers: an output depends on the context, the last token and its feedback alone.

    State: float [n, width], the sum of the context's embeddings, the same from the first token to the last.
    """

    recipe: ClassVar[dict[str, Any]] = {"optimizer": {"learning_rate": 2e-3}}
    default_layers: ClassVar[int] = 2

    def __init__(self, width: int, layers: int = 2) -> None:
        super().__init__()
        self.mixers = nn.ModuleList(FeedForward(width) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def initial_state(self, summary: Tensor, context: Tensor | None) -> Tensor:
        return summary

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x = x + state
        for mixer in self.mixers:
            x = mixer(x)
        return self.last(x), state
