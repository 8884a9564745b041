"""Words: up to sixteen numbers from 0 to 15 in one int64, the first one in the lowest four bits; and orders of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BITS = 4  # of a number
SIZE = 1 << BITS  # different numbers, and numbers in a word
QUAD = 4  # numbers of an order that are looked up at once


def gathered(word: Tensor, places: Tensor, count: int) -> Tensor:
    """The numbers of words at `count` places: all int64 [n], `places` words themselves, as is the result.

    Example:
        >>> hex(gathered(torch.tensor([0x7654]), torch.tensor([0x03]), 2).item())
        '0x47'
    """
    found = torch.zeros_like(word)
    for i in range(count):
        place = (places >> BITS * i & SIZE - 1) << 2
        found = found | (word >> place & SIZE - 1) << BITS * i
    return found


def orders(size: int, count: int) -> tuple[Tensor, Tensor]:
    """All ways to choose `count` of the numbers below `size`, in order: words, int64 [size! / (size − count)!].

    The first choice counts fastest: the first rows are those of fewer choices, with the least numbers after them.

    Returns:
        What is chosen, and what is left, ascending.

    Example:
        >>> [hex(word) for word in orders(3, 2)[0].tolist()]
        ['0x10', '0x1', '0x2', '0x20', '0x21', '0x12']
    """
    row = torch.arange(math.perm(size, count))
    whole = sum(number << BITS * number for number in range(size))
    left = torch.full_like(row, signed(whole))
    chosen = torch.zeros_like(row)
    for i in range(count):
        shift = row % (size - i) * BITS
        row = row // (size - i)
        chosen |= (left >> shift & SIZE - 1) << BITS * i
        below = (1 << shift) - 1
        left = left & below | left >> BITS & ~below
    return chosen, left & (1 << BITS * (size - count)) - 1 if count else left


def rank(chosen: Sequence[int], size: int) -> int:
    """The row of `orders(size, len(chosen))` where they are chosen in that order."""
    left, row, weight = list(range(size)), 0, 1
    for number in chosen:
        row += left.index(number) * weight
        weight *= len(left)
        left.remove(number)
    return row


def signed(word: int) -> int:
    """64 bits as the int64 that they are."""
    return word - (word >> 63 << 64)


class Orders:
    """The rows of `orders(16, count)`, of which there are too many for a table: four numbers at a time.

    Args:
        count: numbers that are chosen at most, 1 to 16.
        device: where the tables are.

    Example:
        >>> row = rank([3, 15, 0, 9, 7], 16)
        >>> hex(Orders(5, torch.device("cpu"))(torch.tensor([row])).item() & 0xFFFFF)
        '0x790f3'
    """

    def __init__(self, count: int, device: torch.device) -> None:
        tables = [orders(size, QUAD) for size in range(SIZE, SIZE - count, -QUAD)]
        self.tables = [(chosen.to(device), left.to(device)) for chosen, left in tables]

    def __call__(self, row: Tensor) -> Tensor:
        """Words of `count` numbers or more from rows, int64 [n]; what follows the chosen ones is not specified."""
        word = pool = torch.zeros_like(row)
        for level, (chosen, left) in enumerate(self.tables):
            last = level + 1 == len(self.tables)
            here, row = (row, row) if last else (row % len(chosen), row // len(chosen))
            picked = chosen.index_select(0, here)
            word = word | gathered(pool, picked, QUAD) << BITS * QUAD * level if level else picked
            if not last:
                kept = left.index_select(0, here)
                pool = gathered(pool, kept, SIZE - QUAD * (level + 1)) if level else kept
        return word
