"""Maps that are one cycle through all nodes: random ones in batches, packed into int64 words."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Packing:
    """The layout of maps of `size` nodes in int64 words.

    Attributes:
        bits: bits of a node.
        per: nodes of a word.
        words: words of a map.

    Example:
        >>> packing = Packing(16)
        >>> packing.bits, packing.per, packing.words
        (4, 16, 1)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.bits = max(1, (size - 1).bit_length())
        self.per = 64 // self.bits
        self.words = -(-size // self.per)

    def map_of(self, order: Tensor) -> Tensor:
        """Pack the maps of cycles, given as their nodes in order: int64 [size, n] -> int64 [n, words]."""
        after = torch.cat([order[1:], order[:1]])
        shift = order % self.per * self.bits if self.words > 1 else order * self.bits
        columns = []
        for w in range(self.words):
            put = after << shift
            if self.words > 1:
                put = torch.where(order // self.per == w, put, 0)
            columns.append(put.sum(0))  # no two nodes share a bit, so the sum is a union
        return torch.stack(columns, 1)

    def unpacked(self, words: Tensor) -> Tensor:
        """Unpack maps to the node after each node: int64 [n, words] -> int64 [n, size]."""
        node = torch.arange(self.size, device=words.device)
        return words[:, node // self.per] >> (node % self.per * self.bits) & ((1 << self.bits) - 1)


class Shuffles:
    """A stock of random orders of the nodes: drawing a few takes as long as drawing many, so they are drawn at once."""

    def __init__(self, size: int, maps: int, generator: torch.Generator) -> None:
        self.size, self.maps, self.generator = size, maps, generator
        self.stock = torch.empty(size, maps, 0, dtype=torch.int64, device=generator.device)

    def draw(self, n: int) -> None:
        """Draw a new stock of n orders for each map."""
        device = self.stock.device
        chances = (torch.rand(self.maps * n, generator=self.generator, device=device) for _ in range(1, self.size))
        swaps = ((chance * i).long() for i, chance in zip(range(self.size, 1, -1), chances, strict=True))
        self.stock = shuffled(swaps, nodes(self.size, self.maps * n, device)).view(self.size, self.maps, n)

    def take(self, n: int) -> tuple[Tensor, ...]:
        """Remove n orders for each map from the stock, int64 [size, n] each, and return them."""
        if self.stock.shape[2] < n:
            self.draw(n)
        taken, self.stock = self.stock[..., :n], self.stock[..., n:]
        return taken.unbind(1)


def shuffled(swaps: Iterable[Tensor], order: Tensor) -> Tensor:
    """Shuffle in place (Fisher and Yates, 1938).

    Args:
        swaps: for each index from the last down to 1, the indices up to it that it is swapped with, int64 [n] each. If
            they are uniform, so is the result.
        order: int64 [size, n], the columns to shuffle.

    Returns:
        `order`.
    """
    size, n = order.shape
    episode, flat = torch.arange(n, device=order.device), order.view(-1)
    for i, swap in zip(range(size - 1, 0, -1), swaps, strict=True):
        place = torch.add(episode, swap, alpha=n)
        other = flat.index_select(0, place)
        flat.index_copy_(0, place, order[i].clone())
        order[i] = other
    return order


def nodes(size: int, n: int, device: torch.device) -> Tensor:
    """Return the nodes in ascending order, n times: int64 [size, n]."""
    return torch.arange(size, device=device)[:, None].repeat(1, n)


def cycle(after: list[int], start: int) -> list[int]:
    """Return the cycle through `start` of the map `after`; empty if `start` is not on a cycle."""
    path: list[int] = []
    while 0 <= start < len(after) and start not in path:
        path.append(start)
        start = after[start]
    return path if path and start == path[0] else []
