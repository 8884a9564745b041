"""From a hidden state to the next token and the value."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modelnative import native

QUERY = 32  # dimensions in which what was read is compared with what is looked for
TINY = 1e-30  # keeps logarithms finite; far below any probability whose gradient could still matter


class Heads(nn.Module):
    """Policy, value and copy head, one matrix product for all.

    The copy head scores every context position. Generated and copied tokens share one softmax, and a token's
    probability is the sum over all ways to write it (CopyNet, Gu et al., 2016, eq. 4-6; pointer-generator, See et al.,
    2017). The score is by place and by content, both linear in the hidden state; or, where the context was read, it is
    how well what was read there answers to a query (Vaswani et al., 2017, eq. 1), linear in the hidden state too.

    Args:
        width: units of the hidden state.
        vocabulary: number of tokens V.
        context: context positions C.
        padding: the token that pads contexts; it is never copied.
        copy: whether there is a copy head.
        reads: whether it goes by what was read.
    """

    def __init__(
        self, width: int, vocabulary: int, context: int, padding: int, copy: bool, reads: bool = False
    ) -> None:
        super().__init__()
        self.vocabulary, self.points = vocabulary, copy and reads
        scores = [QUERY] if reads else [context, vocabulary]
        self.sizes = [vocabulary, 1, *(scores if copy else [])]
        self.padding = padding
        self.out = nn.Linear(width, sum(self.sizes))
        nn.init.orthogonal_(self.out.weight, 0.01)
        nn.init.zeros_(self.out.bias)
        if self.points:
            nn.init.orthogonal_(self.out.weight.data[-QUERY:])  # else query and key would both begin at nothing
            self.key = nn.Linear(width, QUERY)

    def keys(self, read: Tensor) -> Tensor:
        """What queries are compared with, of what was read at each place, float [n, C, width]: float [n, C, QUERY]."""
        return self.key(read) / math.sqrt(QUERY)

    def forward(self, hidden: Tensor, context: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Read the next token's distribution and the value.

        Args:
            hidden: float [M, width].
            context: int64 [M, C].
            keys: float [M, C, QUERY], where the context was read.

        Returns:
            log-probabilities float [M, V]; value float [M]; the probability that the token is copied from each context
            position, float [M, C] (C = 0 without a copy head).
        """
        return self.read(self.out(hidden), context, keys)

    def weigh(self, hidden: Tensor, context: Tensor, heed: Tensor | None, episode: Tensor | None) -> native.Choices:
        """What the native kernels choose from and judge by, instead of `forward`; see `native.Choices`."""
        weight, bias = self.out.weight, self.out.bias
        return native.Choices(hidden, weight, bias, context, heed, episode, self.vocabulary, self.padding)

    def read(self, out: Tensor, context: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The same from the product with the heads' matrix, float [M, sum of sizes]."""
        write, value, *copy = out.split(self.sizes, -1)
        value = value.squeeze(-1)
        if not copy:
            return write.log_softmax(-1).clamp_min(math.log(TINY)), value, write[..., :0]
        if self.points:
            assert keys is not None, "the context was not read"
            score = (keys @ copy[0][..., None])[..., 0]
        else:
            by_place, by_content = copy
            score = by_place + by_content.gather(-1, context)
        score = score.masked_fill(context == self.padding, -torch.inf)
        written, copied = torch.cat([write, score], -1).softmax(-1).split([write.shape[-1], score.shape[-1]], -1)
        return written.scatter_add(-1, context, copied).clamp_min(TINY).log(), value, copied
