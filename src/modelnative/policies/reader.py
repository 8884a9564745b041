"""How a network reads its problem before it acts, where the sum of its tokens would not say enough."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from modelnative.policies.cores import GRULayer
from modelnative.policies.recurrence import gru


class Reader(nn.Module):
    """Two GRUs, one reading forwards and one backwards (Schuster and Paliwal, 1997; Bahdanau et al., 2015).

    What is read at a place knows all that stands around it: of a sign in an expression, say, which operands it has.

    Args:
        vocabulary: number of tokens V.
        width: of what is read at each place, even: half from each direction.
        padding: the token that pads contexts, at their ends.
    """

    def __init__(self, vocabulary: int, width: int, padding: int) -> None:
        super().__init__()
        self.padding, self.each = padding, width // 2
        self.token = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token.weight, std=width**-0.5)
        self.directions = nn.ModuleList(GRULayer(width, self.each) for _ in range(2))

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Read contexts, int64 [n, C].

        Returns:
            What is read at each place, float [n, C, width]; and in all, float [n, width]: what the two know at their
            ends, the one at the last token that is no padding, the other at the first.
        """
        n, places = context.shape
        layers = [cast(GRULayer, layer) for layer in self.directions]
        orders = (context.t(), context.t().flip(0))
        tables = [self.token.weight @ layer.weight.t() + layer.bias for layer in layers]
        gates = torch.stack([embedding(order.flatten(), table) for order, table in zip(orders, tables, strict=True)])
        recurrent, inner = (torch.stack([getattr(layer, name) for layer in layers]) for name in ("recurrent", "inner"))
        hidden = gru(gates, gates.new_zeros(2, n, self.each), recurrent, inner, [n] * places)
        onwards, backwards = hidden.view(2, places, n, self.each)
        read = torch.cat([onwards, backwards.flip(0)], 2).transpose(0, 1)
        last = places - 1 - (context != self.padding).long().flip(1).argmax(1)
        return read, torch.cat([onwards[last, torch.arange(n, device=last.device)], backwards[-1]], 1)
