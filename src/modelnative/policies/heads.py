"""From a hidden state to the next token and the value."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modelnative import native

TINY = 1e-30  # keeps logarithms finite; far below any probability whose gradient could still matter


class Heads(nn.Module):
    """Policy, value and copy head, one matrix product for all.

    The copy head scores every context position by place and by content, both linear in the hidden state. Generated
    and copied tokens share one softmax, and a token's probability is the sum over all ways to write it (CopyNet,
    Gu et al., 2016, eq. 4-6; pointer-generator, See et al., 2017).

    Args:
        width: units of the hidden state.
        vocabulary: number of tokens V.
        context: context positions C.
        padding: the token that pads contexts; it is never copied.
        copy: whether there is a copy head.
    """

    def __init__(self, width: int, vocabulary: int, context: int, padding: int, copy: bool) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.sizes = [vocabulary, 1, context, vocabulary] if copy else [vocabulary, 1]
        self.padding = padding
        self.out = nn.Linear(width, sum(self.sizes))
        nn.init.orthogonal_(self.out.weight, 0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read the next token's distribution and the value.

        Args:
            hidden: float [M, width].
            context: int64 [M, C].

        Returns:
            log-probabilities float [M, V]; value float [M]; the probability that the token is copied from each context
            position, float [M, C] (C = 0 without a copy head).
        """
        return self.read(self.out(hidden), context)

    def weigh(self, hidden: Tensor, context: Tensor, heed: Tensor | None, episode: Tensor | None) -> native.Choices:
        """What the native kernels choose from and judge by, instead of `forward`; see `native.Choices`."""
        weight, bias = self.out.weight, self.out.bias
        return native.Choices(hidden, weight, bias, context, heed, episode, self.vocabulary, self.padding)

    def read(self, out: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same from the product with the heads' matrix, float [M, sum of sizes]."""
        write, value, *copy = out.split(self.sizes, -1)
        value = value.squeeze(-1)
        if not copy:
            return write.log_softmax(-1).clamp_min(math.log(TINY)), value, write[..., :0]
        by_place, by_content = copy
        score = (by_place + by_content.gather(-1, context)).masked_fill(context == self.padding, -torch.inf)
        written, copied = torch.cat([write, score], -1).softmax(-1).split([write.shape[-1], score.shape[-1]], -1)
        return written.scatter_add(-1, context, copied).clamp_min(TINY).log(), value, copied
