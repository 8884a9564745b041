"""The values that given numbers reach, each used once: dynamic programming over subsets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LIMIT = 999  # the largest result
OPERATORS = "+-*/"
BITS = 10  # of a value


@dataclass
class ReachableValues:
    """The values that n multisets of k numbers reach. A subset is a number below 2ᵏ with bit i for number i.

    Attributes:
        count: k.
        ways: int64 [n, LIMIT + 1], the number of expressions of all numbers with each value; none has the value 0.
        how: int64 [2ᵏ, n, LIMIT + 1], for each subset and value the last operation of one expression. From the highest
            bit down: the subset of the operand with the lowest number, the operator, the value of that operand, the
            value of the other operand.
    """

    count: int
    ways: Tensor
    how: Tensor

    def programs(self, row: Tensor, value: Tensor) -> Tensor:
        """Return one expression for each value, as a list of operations in the order of evaluation.

        Args:
            row: int64 [m], indices of multisets.
            value: int64 [m], values that the numbers reach.

        Returns:
            int64 [m, k − 1, 3]: left operand, operator and right operand of each operation. An operand is the index of
            a number, or k plus the index of an earlier operation; an operator is its index in `OPERATORS`.
        """
        k, m = self.count, len(row)
        # The nodes of the tree in breadth-first order: children are appended when their parent is processed.
        subsets = torch.full((m, k), (1 << k) - 1, device=row.device)
        values = value[:, None].repeat(1, k)
        tail = torch.ones_like(row)
        steps: list[Tensor] = []
        for node in range(k - 1):
            whole = subsets[:, node]
            code = self.how[whole, row, values[:, node]]
            left, right = code >> BITS & (1 << BITS) - 1, code & (1 << BITS) - 1
            operator, part = code >> 2 * BITS & 3, code >> 2 * BITS + 2
            operands = []
            # The node that is appended last is evaluated first.
            for subset, number in ((whole - part, right), (part, left)):
                place = torch.zeros_like(row)
                for i in range(1, k):
                    place = torch.where(subset == 1 << i, i, place)
                inner = subset & subset - 1 > 0
                at = torch.where(inner, tail, k - 1)[:, None]  # the last column is unused
                subsets.scatter_(1, at, subset[:, None])
                values.scatter_(1, at, number[:, None])
                operands.append(torch.where(inner, k + k - 2 - tail, place))
                tail = tail + inner.long()
            swapped = right > left  # a difference or quotient begins with the larger operand
            other, one = operands
            pair = torch.where(swapped, other, one), torch.where(swapped, one, other)
            ordered = (operator == OPERATORS.index("-")) | (operator == OPERATORS.index("/"))
            first, second = torch.where(ordered, pair[0], one), torch.where(ordered, pair[1], other)
            steps.insert(0, torch.stack([first, operator, second], 1))
        return torch.stack(steps, 1)


def solve(numbers: Tensor, operators: str) -> ReachableValues:
    """Find all values that the numbers reach, each used once, with all results integers from 1 to `LIMIT`.

    The values of a subset are those of one operation on the values of two complementary parts (Bellman, 1957; on
    subsets, Held and Karp, 1962). Expressions are counted as trees: a + b and b + a are the same, (a + b) + c and
    a + (b + c) are different.

    Args:
        numbers: int64 [n, k], from 1 to `LIMIT`.
        operators: some of `OPERATORS`; division is exact.

    Example:
        >>> reached = solve(torch.tensor([[2, 3, 7]]), "+*")
        >>> reached.ways[0].nonzero()[:, 0].tolist()
        [12, 13, 17, 20, 23, 27, 35, 42]
        >>> reached.ways[0, [12, 17, 42]].tolist()
        [3, 1, 3]
        >>> reached.programs(torch.tensor([0]), torch.tensor([27])).tolist()
        [[[0, 0, 2], [3, 2, 1]]]
    """
    n, k = numbers.shape
    how = torch.full((1 << k, n, LIMIT + 1), torch.iinfo(torch.int64).max, device=numbers.device)
    lists: dict[int, tuple[Tensor, Tensor]] = {}
    for i in range(k):
        lists[1 << i] = numbers[:, i : i + 1], torch.ones_like(numbers[:, :1])
    ways = torch.zeros(n, LIMIT + 1, dtype=torch.int64, device=numbers.device)
    for subset in range(1, 1 << k):
        if subset in lists:
            continue
        ways = torch.zeros_like(ways)
        lowest = subset & -subset
        part = subset
        while part := (part - 1) & subset:
            if part & lowest:
                _combine(lists[part], lists[subset - part], part, operators, ways, how[subset])
        ways[:, 0] = 0
        lists[subset] = _listed(ways)
    return ReachableValues(k, ways, how)


def _combine(
    one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], part: int, operators: str, ways: Tensor, how: Tensor
) -> None:
    """Add the results of one operation on two lists of values to `ways` and `how`, both [n, LIMIT + 1]."""
    a, b = one[0][:, :, None], other[0][:, None, :]
    trees = (one[1][:, :, None] * other[1][:, None, :]).flatten(1)
    both, high, low = (a > 0) & (b > 0), torch.maximum(a, b), torch.minimum(a, b)
    quotient = high // low.clamp_min(1)
    exact = torch.where(quotient * low == high, quotient, 0)
    results = {"+": a + b, "-": high - low, "*": a * b, "/": exact}
    for operator in operators:
        result = results[operator]
        result = torch.where(both & (result <= LIMIT), result, 0).flatten(1)
        code = ((part << 2 | OPERATORS.index(operator)) << 2 * BITS) + (a << BITS) + b
        ways.scatter_add_(1, result, trees)
        how.scatter_reduce_(1, result, code.flatten(1), "amin")


def _listed(ways: Tensor) -> tuple[Tensor, Tensor]:
    """List the values with an expression, and the numbers of expressions: both int64 [n, most], padded with 0."""
    row, value = (ways > 0).nonzero(as_tuple=True)
    size = (ways > 0).sum(1)
    place = torch.arange(len(row), device=row.device) - (size.cumsum(0) - size)[row]
    values, counts = (ways.new_zeros(len(ways), int(size.max()) if len(ways) else 0) for _ in range(2))
    values[row, place], counts[row, place] = value, ways[row, value]
    return values, counts
