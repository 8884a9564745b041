"""Binary trees in batches: every shape of up to 12 operators by number, and the value of a tree.

Operators are numbered in reading order: operator i stands between the leaves i and i + 1. While a tree is worked off
in postorder, a subtree lives in the slot of its leftmost leaf: operator i takes the slots `low[i]` and i + 1, and
leaves its result in `low[i]`; the root's is left in slot 0. Two numbers an operator are thus all of a shape.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import mixed

MOST = 12  # operators; 208,012 shapes have 12
MUL, ADD, SUB = 1, 2, 3  # operator codes; 0 stands where there is none
HELD_OUT = 5  # one shape in so many is "unseen"


@dataclass
class Shapes(Batch):
    """What the shapes of up to `most` operators look like, a row each: all of size 1, then of size 2, and so on.

    Of one size, those with the smaller left subtree come first, then in the order of the left, then of the right
    subtree. What a smaller shape lacks is filled up with operator `most` and slot `most` + 1, where nothing stands.

    Attributes:
        order: uint8 [s, most], the operators in postorder (left subtree, right subtree, root).
        low: uint8 [s, most], the leftmost leaf below each, in postorder too; equal to `order` if a leaf is at its left.
        high: uint8 [s, most], the rightmost leaf below each; `order` + 1 if a leaf is at its right.
        parent: uint8 [s, most], of each operator in postorder; `most` for the root.
        right: bool [s, most], whether it is its parent's right operand.
        fewest, largest: uint8 [s], memory cells that the shape needs if every operator commutes, or none.
    """

    order: Tensor
    low: Tensor
    high: Tensor
    parent: Tensor
    right: Tensor
    fewest: Tensor
    largest: Tensor


def catalan(n: int) -> int:
    """Shapes of n operators."""
    return math.comb(2 * n, n) // (n + 1)


def first_shape(n: int) -> int:
    """The number of the first shape of n operators."""
    return sum(catalan(size) for size in range(1, n))


@functools.cache
def all_shapes(most: int) -> Shapes:
    """The shapes of 1 to `most` operators, on the processor."""
    none = torch.zeros(1, 0, dtype=torch.uint8)
    count = torch.zeros(1, dtype=torch.uint8)
    sizes = [Shapes(none, none, none, none, none.bool(), count, count)]
    for n in range(1, most + 1):
        sizes.append(Batch.cat([_joined(sizes[i], sizes[n - 1 - i], i, n) for i in range(n)]))
    return Batch.cat([_padded(part, most) for part in sizes[1:]])


def _joined(left: Shapes, right: Shapes, i: int, n: int) -> Shapes:
    """Every shape of n operators whose root is operator i; `left` and `right` are all shapes of its subtrees."""
    pairs = torch.cartesian_prod(torch.arange(len(left)), torch.arange(len(right)))
    a, b = left[pairs[:, 0]], right[pairs[:, 1]]
    rows = len(pairs)

    def column(value: int) -> Tensor:
        return torch.full((rows, 1), value, dtype=torch.uint8)

    order = torch.cat([a.order, b.order + (i + 1), column(i)], 1)
    root = torch.zeros(rows, n, dtype=torch.bool)  # where the roots of the subtrees stand: each the last of its own
    parent = torch.cat([a.parent, b.parent + (i + 1), column(n)], 1)
    if i:
        root[:, i - 1] = True
    if i < n - 1:
        root[:, n - 2] = True
    turned = torch.cat([a.right, b.right, torch.zeros(rows, 1, dtype=torch.bool)], 1)
    if i < n - 1:
        turned[:, n - 2] = True
    return Shapes(
        order=order,
        low=torch.cat([a.low, b.low + (i + 1), column(0)], 1),
        high=torch.cat([a.high, b.high + (i + 1), column(n)], 1),
        parent=parent.masked_fill(root, i),
        right=turned,
        fewest=_cells(a.fewest, b.fewest, torch.tensor(i == 0), torch.tensor(i == n - 1), torch.tensor(True)),
        largest=_cells(a.largest, b.largest, torch.tensor(i == 0), torch.tensor(i == n - 1), torch.tensor(False)),
    )


def _cells(left: Tensor, right: Tensor, left_leaf: Tensor, right_leaf: Tensor, commutes: Tensor) -> Tensor:
    """Memory cells for an operator from those for its operands, all [n]; the ways to go are those of `schedule`."""
    held = torch.where(commutes, right, right.clamp_min(1))
    both = torch.minimum(torch.maximum(left, held + 1), torch.maximum(right, left + 1))
    return torch.where(right_leaf, left, torch.where(left_leaf, held, both))


def _padded(shapes: Shapes, most: int) -> Shapes:
    rows, n = shapes.order.shape

    def widened(tensor: Tensor, value: int) -> Tensor:
        return torch.cat([tensor, torch.full((rows, most - n), value, dtype=tensor.dtype)], 1)

    parent = widened(shapes.parent, most)
    parent[:, n - 1] = most
    return Shapes(
        order=widened(shapes.order, most),
        low=widened(shapes.low, most + 1),
        high=widened(shapes.high, most + 1),
        parent=parent,
        right=widened(shapes.right, False),
        fewest=shapes.fewest,
        largest=shapes.largest,
    )


def unseen(n: int) -> Tensor:
    """Which shapes of n operators are held out, one in five by a hash: bool [catalan(n)]; of fewer than five, none."""
    number = first_shape(n) + torch.arange(catalan(n))
    rank = mixed(number).argsort().argsort()
    return rank < len(number) // HELD_OUT


def chosen(most: int, needs: int, which: str) -> list[Tensor]:
    """The numbers of the shapes of each size, 1 to `most`, that can do with `needs` memory cells.

    Args:
        most: as in `all_shapes`.
        needs: memory cells, which the shape must not exceed if every operator commutes.
        which: "all"; or "seen" or "unseen" alone, at the sizes that have unseen ones.
    """
    shapes, numbers = all_shapes(most), []
    for n in range(1, most + 1):
        first, held_out = first_shape(n), unseen(n)
        wanted = shapes.fewest[first : first + catalan(n)] <= needs
        if which != "all" and bool(held_out.any()):
            wanted &= held_out if which == "unseen" else ~held_out
        numbers.append(first + wanted.nonzero()[:, 0])
    return numbers


def shape_number(splits: list[tuple[int, int]]) -> int:
    """The number of a shape from the sizes (left, right) of each operator's subtrees, in preorder.

    Example:
        >>> [shape_number(s) for s in ([(0, 0)], [(0, 1), (0, 0)], [(1, 0), (0, 0)], [(1, 1), (0, 0), (0, 0)])]
        [0, 1, 2, 5]
    """
    rest = iter(splits)

    def rank(n: int) -> int:
        if n == 0:
            return 0
        left, right = next(rest)
        before = sum(catalan(size) * catalan(n - 1 - size) for size in range(left))
        return before + rank(left) * catalan(right) + rank(right)

    n = len(splits)
    return first_shape(n) + rank(n)


class Slots:
    """The slots of n trees that are worked off in postorder, an operator of each tree at a time.

    Args:
        order, low: int64 [n, most], as in `Shapes`.
        leaves: [n, most + 1, ...], what the slots hold at first.
    """

    def __init__(self, order: Tensor, low: Tensor, leaves: Tensor) -> None:
        n, most = order.shape
        self.slots = torch.cat([leaves, torch.zeros_like(leaves[:, :1])], 1).flatten(0, 1)
        self.root = torch.arange(0, n * (most + 2), most + 2, device=order.device)
        # An operator at a time is read from one place; so is each slot, as in one list of them all.
        self.left = (low.t() + self.root).contiguous()
        self.right = (order.t() + (self.root + 1)).contiguous()

    def pair(self, k: int) -> tuple[Tensor, Tensor]:
        """What stands at the left and at the right of each tree's k-th operator, [n, ...]."""
        return self.slots.index_select(0, self.left[k]), self.slots.index_select(0, self.right[k])

    def join(self, k: int, result: Tensor) -> None:
        """Put the k-th operator's result in their place."""
        self.slots.index_copy_(0, self.left[k], result)

    def split(self, k: int, left: Tensor, right: Tensor) -> None:
        """The way back: put something for each operand of the k-th operator in their places."""
        self.slots.index_copy_(0, self.left[k], left)
        self.slots.index_copy_(0, self.right[k], right)

    def whole(self) -> Tensor:
        """What stands for each tree in the end, [n, ...]."""
        return self.slots.index_select(0, self.root)


def in_postorder(order: Tensor, operators: Tensor) -> Tensor:
    """The codes of the operators, int64 [most, n], from those in reading order, int64 [n, most]."""
    return pad(operators, (0, 1)).gather(1, order).t().contiguous()


def evaluated(order: Tensor, low: Tensor, operators: Tensor, operands: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The value of each tree, and whether every subtree's is below `limit`: int64 [n], bool [n].

    Args:
        order, low: int64 [n, most], as in `Shapes`.
        operators: int64 [n, most], codes in reading order.
        operands: int64 [n, most + 1], zero where a tree has no leaf.
        limit: at most 2³¹; values are cut there, so that none overflows.
    """
    slots, codes = Slots(order, low, operands), in_postorder(order, operators)
    # Two operations for all rows and a choice between them; where a shape has no operator, 0 is put in place of 0.
    multiplies, sign = codes == MUL, torch.where(codes == SUB, -1, 1)
    largest = torch.zeros_like(slots.root)
    for k in range(len(codes)):
        left, right = slots.pair(k)
        result = torch.where(multiplies[k], left * right, torch.addcmul(left, sign[k], right)).clamp(-limit, limit)
        largest = torch.maximum(largest, result.abs())
        slots.join(k, result)
    return slots.whole(), largest < limit


def cells_needed(shapes: Shapes, operators: Tensor) -> Tensor:
    """The fewest memory cells that each tree can be evaluated with, its Ershov number here: int64 [n].

    Args:
        shapes: n rows.
        operators: int64 [n, most], codes in reading order.
    """
    order = shapes.order.long()
    slots = Slots(order, shapes.low.long(), pad(torch.zeros_like(operators), (0, 1)))
    left_leaf, right_leaf = (shapes.low == shapes.order).t(), (shapes.high == shapes.order + 1).t()
    commutes = in_postorder(order, operators) != SUB
    for k in range(len(commutes)):
        slots.join(k, _cells(*slots.pair(k), left_leaf[k], right_leaf[k], commutes[k]))
    return slots.whole()
