"""Words: sixteen numbers from 0 to 15 packed into an int64, the first one in the lowest four bits; and orders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BITS = 4  # of a number
SIZE = 1 << BITS  # number of different numbers, and of numbers in a word


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


def order(row: Tensor, size: int, count: int) -> Tensor:
    """Return ordered choices of `count` of the numbers below `size`: rows, int64 [n], to words, int64 [n].

    There are size! / (size − count)! rows; the first choice changes fastest.

    Example:
        >>> [hex(word) for word in order(torch.arange(6), 3, 2).tolist()]
        ['0x10', '0x1', '0x2', '0x20', '0x21', '0x12']
    """
    left = torch.full_like(row, signed(sum(number << BITS * number for number in range(size))))
    chosen = torch.zeros_like(row)
    for i in range(count):
        shift = row % (size - i) * BITS
        row = row // (size - i)
        chosen |= (left >> shift & SIZE - 1) << BITS * i
        below = (1 << shift) - 1
        left = left & below | left >> BITS & ~below
    return chosen


def rank(chosen: Sequence[int], size: int) -> int:
    """Return the row of `order` with these numbers."""
    left, row, weight = list(range(size)), 0, 1
    for number in chosen:
        row += left.index(number) * weight
        weight *= len(left)
        left.remove(number)
    return row


def signed(word: int) -> int:
    """Return 64 bits as a signed int64."""
    return word - (word >> 63 << 64)
