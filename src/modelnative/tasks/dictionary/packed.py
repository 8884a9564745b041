"""Words: sixteen numbers from 0 to 15 packed into an int64, the first one in the lowest four bits; and orders."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BITS = 4  # of a number
SIZE = 1 << BITS  # number of different numbers, and of numbers in a word
QUAD = 4  # numbers of an order that are looked up at once


def gathered(word: Tensor, places: Tensor, count: int) -> Tensor:
    """Gather the numbers of words at `count` places; `word`, `places` and the result are words, int64 [n].

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
    """Return all ordered choices of `count` of the numbers below `size`: words, int64 [size! / (size − count)!].

    The first choice changes fastest.

    Returns:
        The words of the chosen numbers, and of the other numbers in ascending order.

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
    """Return the row of `orders(size, len(chosen))` with these numbers."""
    left, row, weight = list(range(size)), 0, 1
    for number in chosen:
        row += left.index(number) * weight
        weight *= len(left)
        left.remove(number)
    return row


def signed(word: int) -> int:
    """Return 64 bits as a signed int64."""
    return word - (word >> 63 << 64)


class PackedOrders:
    """The rows of `orders(16, count)`. They are too many for one table, so four numbers at a time are looked up.

    Args:
        count: largest number of chosen numbers, 1 to 16.
        device: the device of the tables.

    Example:
        >>> row = rank([3, 15, 0, 9, 7], 16)
        >>> hex(PackedOrders(5, torch.device("cpu"))(torch.tensor([row])).item() & 0xFFFFF)
        '0x790f3'
    """

    def __init__(self, count: int, device: torch.device) -> None:
        tables = [orders(size, QUAD) for size in range(SIZE, SIZE - count, -QUAD)]
        self.tables = [(chosen.to(device), left.to(device)) for chosen, left in tables]

    def __call__(self, row: Tensor) -> Tensor:
        """Return words from rows, int64 [n]; the numbers after the first `count` are undefined."""
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
