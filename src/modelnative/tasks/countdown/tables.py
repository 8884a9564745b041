"""The lookup tables of Countdown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.countdown.problems import OPERATION, SLOT, VALUE
from modelnative.tasks.countdown.solver import LIMIT

DIGITS = len(str(LIMIT))  # of a value
ANSWERED, ENDED = 1, 2  # how an episode ended; 0 while it runs


@dataclass
class CountdownTables(Batch):
    """Lookup tables; V is the size of the vocabulary.

    Attributes:
        first, second: int64 [V], the first bits of a token's operands in `CountdownState.values`.
        operator: int64 [V], its index in `OPERATORS`.
        operation: int64 [V], its index in the list of operations; −1 for other tokens.
        over: int64 [V], how the token ends an episode: 0, `ANSWERED` or `ENDED`.
        reciprocal: int64 [LIMIT + 1], 2²⁰ / b, rounded up: (a · reciprocal) >> 20 is a // b for all values.
        programs: int64 [2 ** OPERATION], the token of each operation of a solution.
        digits: int64 [LIMIT + 1, DIGITS], the digits of a value; blank for 0.
        missing: int64 [2 · LIMIT + 2, 1 + DIGITS], sign (blank if positive) and digits of the difference to the target,
            from −LIMIT on; the last row is blank.
        targets, numbers: int64 [values, digits], the digits of a target and of a number; blank for the number 0.
    """

    first: Tensor
    second: Tensor
    operator: Tensor
    operation: Tensor
    over: Tensor
    reciprocal: Tensor
    programs: Tensor
    digits: Tensor
    missing: Tensor
    targets: Tensor
    numbers: Tensor


def make_tables(
    vocabulary: int, operations: list[tuple[int, int, int]], first_key: int, minus: int, largest: int, targets: int
) -> CountdownTables:
    """Make the tables, on the CPU.

    Args:
        vocabulary: number of tokens; the last two are ANS and EOS.
        operations: first slot, operator and second slot of each operation.
        first_key: the token of the first operation.
        minus: the token of the minus sign.
        largest: the largest number of a problem.
        targets: the largest target.
    """
    answer, blank = vocabulary - 2, vocabulary - 1
    first, second, operator, over = torch.zeros(4, vocabulary, dtype=torch.int64)
    operation, programs = torch.full((vocabulary,), -1), torch.full((1 << OPERATION,), blank)
    for token, (a, o, b) in enumerate(operations, first_key):
        first[token], second[token], operator[token], operation[token] = VALUE * a, VALUE * b, o, token - first_key
        programs[a + (o << SLOT) + (b << SLOT + 2)] = token
    over[answer], over[blank] = ANSWERED, ENDED
    digits, numbers = _digits(LIMIT + 1, DIGITS), _digits(largest + 1, len(str(largest)))
    sizes = torch.cat([digits[1:].flip(0), digits])  # of −LIMIT to LIMIT
    sign = torch.where(torch.arange(len(sizes)) < LIMIT, minus, blank)[:, None]
    missing = torch.cat([torch.cat([sign, sizes], 1), torch.full((1, 1 + DIGITS), blank)])
    digits[0] = numbers[0] = blank
    return CountdownTables(
        first=first,
        second=second,
        operator=operator,
        operation=operation,
        over=over,
        reciprocal=-(-(1 << 2 * VALUE) // torch.arange(LIMIT + 1).clamp_min(1)),
        programs=programs,
        digits=digits,
        missing=missing,
        targets=_digits(LIMIT + 1, len(str(targets))),
        numbers=numbers,
    )


def _digits(numbers: int, places: int) -> Tensor:
    """The digits of 0, 1, 2, …, from the left: int64 [numbers, places]."""
    return torch.arange(numbers)[:, None] // 10 ** torch.arange(places - 1, -1, -1) % 10
