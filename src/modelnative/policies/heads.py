"""From a hidden state to the next action and the value."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modelnative.native import operator

QUERY = 32  # dimensions in which a query is compared with the keys of the context
TINY = 1e-30  # the least probability; keeps logarithms finite, and its gradient could not matter


@operator("copy_heads")
def copy_heads(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    context: Tensor,
    vocabulary: int,
    padding: int,
    selected: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Policy, value and copy head from one matrix product.

    Args:
        hidden: float [T * n, width], of T steps of n episodes, time first.
        weight, bias: float [S, width] and [S]: scores of V tokens, the value and, with a copy head, scores of C places
            and of V contents. A place's score is that of the place plus that of the token there.
        context: int64 [n, C].
        vocabulary: V.
        padding: the token that pads contexts; it is never copied.
        selected: int64 [M], which hidden states to use, each at most once; None for all.

    Returns:
        Log-probabilities float [M, V]; value float [M]; the part of the probability that is copied from each context
        position, float [M, C] (C = 0 without a copy head).
    """
    hidden, context = select_states(hidden, context, selected)
    places = context.shape[1] if len(bias) > vocabulary + 1 else 0
    sizes = [vocabulary, 1, places, len(bias) - vocabulary - 1 - places]
    write, value, by_place, by_content = torch.addmm(bias, hidden, weight.t()).split(sizes, 1)
    context = context[:, :places]
    copy = by_place + by_content.gather(1, context) if places else by_place
    log_probs, copied = mix_copies(write, copy, context, padding)
    return log_probs, value[:, 0], copied


def select_states(hidden: Tensor, context: Tensor, selected: Tensor | None) -> tuple[Tensor, Tensor]:
    """Selected hidden states, and the rows of `context` (the episodes', [n, ...]) that belong to them."""
    episodes = context.shape[0]
    if selected is None and hidden.shape[0] == episodes:
        return hidden, context
    if selected is None:
        selected = torch.arange(hidden.shape[0], device=hidden.device)
    episode = selected.remainder(selected.new_full((), episodes))  # as tensors, which ONNX knows
    return hidden.index_select(0, selected), context.index_select(0, episode)


def mix_copies(write: Tensor, copy: Tensor, context: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """One distribution over tokens that are written or copied.

    Generated and copied tokens share one softmax, and a token's probability is the sum over all ways to produce it
    (CopyNet, Gu et al., 2016, eq. 4-6; pointer-generator, See et al., 2017).

    Args:
        write: float [M, V], a score for each token.
        copy: float [M, C], a score for each context position.
        context: int64 [M, C].
        padding: the token whose positions are not copied.

    Returns:
        Log-probabilities float [M, V], and the probability copied from each position, float [M, C].
    """
    copy = copy.masked_fill(context == padding, -torch.inf)
    written, copied = torch.cat([write, copy], 1).softmax(1).split([write.shape[1], copy.shape[1]], 1)
    return written.scatter_add(1, context, copied).clamp_min(TINY).log(), copied


class Heads(nn.Module):
    """Policy, value and copy head.

    With `query`, positions are scored by how well what was read there matches a query (Vaswani et al., 2017, eq. 1);
    else by place and by content.

    Args:
        width: units of the hidden state.
        vocabulary: number of tokens V.
        context: context positions C.
        padding: the token that pads contexts; it is never copied.
        copy: whether there is a copy head.
        query: whether it compares a query with keys of the context.
    """

    def __init__(
        self, width: int, vocabulary: int, context: int, padding: int, copy: bool, query: bool = False
    ) -> None:
        super().__init__()
        self.vocabulary, self.padding = vocabulary, padding
        self.query = copy and query
        scores = [QUERY] if query else [context, vocabulary]
        self.out = nn.Linear(width, vocabulary + 1 + (sum(scores) if copy else 0))
        nn.init.orthogonal_(self.out.weight, 0.01)
        nn.init.zeros_(self.out.bias)
        if self.query:
            nn.init.orthogonal_(self.out.weight.data[-QUERY:])  # else query and key would both begin near 0
            self.key = nn.Linear(width, QUERY)

    def keys(self, read: Tensor) -> Tensor:
        """The keys of what was read at each place: float [n, C, width] -> float [n, C, QUERY]."""
        return self.key(read) / math.sqrt(QUERY)

    def forward(
        self, hidden: Tensor, context: Tensor, keys: Tensor | None = None, selected: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `copy_heads`, with the keys of the context, float [n, C, QUERY], where a query is compared with them."""
        if not self.query:
            return copy_heads(hidden, self.out.weight, self.out.bias, context, self.vocabulary, self.padding, selected)
        assert keys is not None, "a query needs keys"
        keys = select_states(hidden, keys, selected)[1]
        hidden, context = select_states(hidden, context, selected)
        write, value, query = self.out(hidden).split([self.vocabulary, 1, QUERY], 1)
        log_probs, copied = mix_copies(write, (keys @ query[..., None])[..., 0], context, self.padding)
        return log_probs, value[:, 0], copied
