"""The minGRU core."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelnative.native import operator
from modelnative.policies.core import Core, squash
from modelnative.policies.cores.feed_forward import FeedForward


class MinGRU(Core):
    """Layers of minGRU (Feng et al., 2024) with residual feed-forward. State: float [n, layers, width].

    Gate and candidate depend on the input alone, so that h_t = (1 - z_t) h_{t-1} + z_t c_t is a linear recurrence,
    solved for all t at once by a parallel scan.
    """

    recipe: ClassVar[dict[str, Any]] = {"optimizer": {"learning_rate": 3e-3}}
    default_layers: ClassVar[int] = 2

    def __init__(self, width: int, layers: int = 2) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(layers))
        self.mixers = nn.ModuleList(FeedForward(width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def initial_state(self, summary: Tensor, context: Tensor | None) -> Tensor:
        return squash(summary)[:, None].expand(-1, len(self.gates), -1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        after = []
        for gate, mixer, norm, h0 in zip(self.gates, self.mixers, self.norms, state.unbind(1), strict=True):
            h = min_gru(gate(norm(x)), h0)
            after.append(h[-1])
            x = mixer(x + h)
        return self.last(x), torch.stack(after, 1)


@operator("mingru")
def min_gru(gates: Tensor, initial: Tensor) -> Tensor:
    """Hidden states float [T, n, width] of update gates and candidates, float [T, n, 2 width]; initial: [n, width]."""
    update, candidate = gates.chunk(2, -1)
    z = update.sigmoid()
    return scan(1 - z, z * candidate, initial)


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
