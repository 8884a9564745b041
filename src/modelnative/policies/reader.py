"""How a network reads its problem before it acts, where the sum of its tokens does not say enough."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from modelnative.policies.core import InputRows
from modelnative.policies.cores.gru import GRULayer, gru


class Reader(nn.Module):
    """Two GRUs, one reading forwards and one backwards (Schuster and Paliwal, 1997; Bahdanau et al., 2015).

    The features of a place depend on all that stands around it: those of an operator, say, on its operands.

    Args:
        vocabulary: number of tokens V.
        width: size of the features of a place, even: half from each direction.
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
            The features of each place, float [n, C, width]; and of the whole, float [n, width]: the last states of
            the two, the one's at the last token that is not padding, the other's at the first token.
        """
        n, places = context.shape
        forwards, backwards = (cast(GRULayer, layer) for layer in self.directions)
        onward = self._read(forwards, context.t())
        back = self._read(backwards, context.t().flip(0))
        features = torch.cat([onward, back.flip(0)], 2).transpose(0, 1)
        last = places - 1 - (context != self.padding).long().flip(1).argmax(1)
        return features, torch.cat([onward[last, torch.arange(n, device=last.device)], back[-1]], 1)

    def _read(self, layer: GRULayer, tokens: Tensor) -> Tensor:
        """The hidden states of one direction: int64 [C, n] -> float [C, n, width / 2]."""
        table = self.token.weight @ layer.weight.t() + layer.bias
        initial = table.new_zeros(tokens.shape[1], self.each)
        return gru(table, InputRows(tokens), initial, layer.recurrent, layer.inner)
