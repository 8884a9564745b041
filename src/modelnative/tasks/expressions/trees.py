"""Batches of binary trees: all shapes of up to 12 operators, numbered, and the evaluation of trees.

Operators are numbered in reading order: operator i is between the leaves i and i + 1. Trees are evaluated in postorder,
with the result of a subtree in the slot of its leftmost leaf: operator i combines the slots `low[i]` and i + 1 and
writes its result to `low[i]`. The value of the tree is in slot 0 at the end. So two numbers for each operator describe
a shape.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import mixed

MOST = 12  # operators; 208,012 shapes have 12
MUL, ADD, SUB = 1, 2, 3  # operator codes; 0 stands where there is none
HELD_OUT = 5  # one in five shapes is "unseen"


@dataclass
class Shapes(Batch):
    """The shapes of up to `most` operators, one row each, ordered by size.

    Shapes of one size are ordered by the size of the left subtree, then by the left, then by the right subtree. Rows of
    smaller shapes are padded with operator `most` and slot `most` + 1, which are unused.

    Attributes:
        order: uint8 [s, most], the operators in postorder (left subtree, right subtree, root).
        low: uint8 [s, most], the leftmost leaf below each operator; equal to `order` if the left operand is a leaf.
        high: uint8 [s, most], the rightmost leaf below each operator; `order` + 1 if the right operand is a leaf.
        parent: uint8 [s, most], the parent of each operator; `most` for the root.
        right: bool [s, most], whether the operator is the right operand of its parent.
        fewest, largest: uint8 [s], memory cells that the shape needs if every operator commutes, and if none does.

    The operators of `order`, `low`, `high`, `parent` and `right` are in postorder.
    """

    order: Tensor
    low: Tensor
    high: Tensor
    parent: Tensor
    right: Tensor
    fewest: Tensor
    largest: Tensor

    def leaves(self) -> tuple[Tensor, Tensor]:
        """Whether the left and the right operand of each operator is a leaf: bool [most, s] each."""
        return (self.low == self.order).t(), (self.high == self.order + 1).t()


def catalan(n: int) -> int:
    """Number of shapes of n operators."""
    return math.comb(2 * n, n) // (n + 1)


def first_shape(n: int) -> int:
    """Number of the first shape of n operators."""
    return sum(catalan(size) for size in range(1, n))


@functools.cache
def all_shapes(most: int) -> Shapes:
    """All shapes of 1 to `most` operators, on the CPU."""
    none = torch.zeros(1, 0, dtype=torch.uint8)
    count = torch.zeros(1, dtype=torch.uint8)
    sizes = [Shapes(none, none, none, none, none.bool(), count, count)]
    for n in range(1, most + 1):
        sizes.append(Batch.cat([_joined(sizes[i], sizes[n - 1 - i], i, n) for i in range(n)]))
    return Batch.cat([_padded(part, most) for part in sizes[1:]])


def _joined(left: Shapes, right: Shapes, i: int, n: int) -> Shapes:
    """All shapes of n operators with operator i as the root; `left` and `right` are all shapes of its subtrees."""
    pairs = torch.cartesian_prod(torch.arange(len(left)), torch.arange(len(right)))
    a, b = left[pairs[:, 0]], right[pairs[:, 1]]
    rows = len(pairs)

    def column(value: int) -> Tensor:
        return torch.full((rows, 1), value, dtype=torch.uint8)

    root = torch.zeros(rows, n, dtype=torch.bool)  # the root of a subtree is the last of its operators
    turned = torch.cat([a.right, b.right, root[:, :1]], 1)
    if i:
        root[:, i - 1] = True
    if i < n - 1:
        root[:, n - 2] = turned[:, n - 2] = True
    leaves = torch.tensor(i == 0), torch.tensor(i == n - 1)
    return Shapes(
        order=torch.cat([a.order, b.order + (i + 1), column(i)], 1),
        low=torch.cat([a.low, b.low + (i + 1), column(0)], 1),
        high=torch.cat([a.high, b.high + (i + 1), column(n)], 1),
        parent=torch.cat([a.parent, b.parent + (i + 1), column(n)], 1).masked_fill(root, i),
        right=turned,
        fewest=_cells(a.fewest, b.fewest, *leaves, torch.tensor(True)),
        largest=_cells(a.largest, b.largest, *leaves, torch.tensor(False)),
    )


def _cells(left: Tensor, right: Tensor, left_leaf: Tensor, right_leaf: Tensor, commutes: Tensor) -> Tensor:
    """Memory cells that an operator needs, from those of its operands, all [n]; see `calculator_oracle`."""
    held = torch.where(commutes, right, right.clamp_min(1))
    both = torch.minimum(torch.maximum(left, held + 1), torch.maximum(right, left + 1))
    return torch.where(right_leaf, left, torch.where(left_leaf, held, both))


def _padded(shapes: Shapes, most: int) -> Shapes:
    n = shapes.order.shape[1]
    missing, root = (0, most - n), torch.arange(n) == n - 1
    return replace(
        shapes,
        order=pad(shapes.order, missing, value=most),
        low=pad(shapes.low, missing, value=most + 1),
        high=pad(shapes.high, missing, value=most + 1),
        parent=pad(shapes.parent.masked_fill(root, most), missing, value=most),
        right=pad(shapes.right, missing, value=False),
    )


def unseen(n: int) -> Tensor:
    """Which shapes of n operators are held out: one in five by a hash, none of fewer than five; bool [catalan(n)]."""
    number = first_shape(n) + torch.arange(catalan(n))
    rank = mixed(number).argsort().argsort()
    return rank < len(number) // HELD_OUT


def selected_shapes(n: int, most: int, needs: int, which: str) -> Tensor:
    """Return the numbers of the shapes of n operators that `needs` memory cells are enough for, int64.

    Args:
        n: operators, 1 to `most`.
        most: see `all_shapes`.
        needs: memory cells; a shape may need no more if every operator commutes.
        which: "all", "seen" or "unseen"; sizes without unseen shapes always have all of them.
    """
    first, held_out = first_shape(n), unseen(n)
    wanted = all_shapes(most).fewest[first : first + catalan(n)] <= needs
    if which != "all" and bool(held_out.any()):
        wanted &= held_out if which == "unseen" else ~held_out
    return first + wanted.nonzero()[:, 0]


def shape_number(splits: list[tuple[int, int]]) -> int:
    """Number of the shape whose operators have subtrees of the sizes (left, right), given in preorder.

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
    """Slots for processing n trees in postorder, one operator of each tree at a time.

    Args:
        order, low: int64 [n, most], see `Shapes`.
        leaves: [n, most + 1, ...], the initial contents of the slots.
    """

    def __init__(self, order: Tensor, low: Tensor, leaves: Tensor) -> None:
        n, most = order.shape
        self.slots = torch.cat([leaves, torch.zeros_like(leaves[:, :1])], 1).flatten(0, 1)
        self.root = torch.arange(0, n * (most + 2), most + 2, device=order.device)
        # Slots are indexed in one flat list, operator by operator, so that each lookup is one index_select.
        self.left = (low.t() + self.root).contiguous()
        self.right = (order.t() + (self.root + 1)).contiguous()

    def pair(self, k: int) -> tuple[Tensor, Tensor]:
        """The contents of the left and right slot of the k-th operator of each tree, [n, ...] each."""
        return self.slots.index_select(0, self.left[k]), self.slots.index_select(0, self.right[k])

    def join(self, k: int, result: Tensor) -> None:
        """Replace the operands of the k-th operator by its result."""
        self.slots.index_copy_(0, self.left[k], result)

    def split(self, k: int, left: Tensor, right: Tensor) -> None:
        """The reverse of `join`: write the slots of both operands of the k-th operator."""
        self.slots.index_copy_(0, self.left[k], left)
        self.slots.index_copy_(0, self.right[k], right)

    def whole(self) -> Tensor:
        """The content of the root's slot of each tree, [n, ...]."""
        return self.slots.index_select(0, self.root)


def in_postorder(order: Tensor, operators: Tensor) -> Tensor:
    """Operator codes in postorder, int64 [most, n], from codes in reading order, int64 [n, most]."""
    return pad(operators, (0, 1)).gather(1, order).t().contiguous()


def evaluate(order: Tensor, low: Tensor, operators: Tensor, operands: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Evaluate each tree.

    Args:
        order, low: int64 [n, most], see `Shapes`.
        operators: int64 [n, most], codes in reading order.
        operands: int64 [n, most + 1], 0 where a tree has no leaf.
        limit: at most 2³¹; values are clamped to it, so that none overflows.

    Returns:
        The values, int64 [n], and whether the values of all subtrees are smaller than `limit` in size, bool [n].
    """
    slots, codes = Slots(order, low, operands), in_postorder(order, operators)
    # Both operations are computed for all rows. The padding of smaller shapes replaces 0 by 0.
    multiplies, sign = codes == MUL, torch.where(codes == SUB, -1, 1)
    largest = torch.zeros_like(slots.root)
    for k in range(len(codes)):
        left, right = slots.pair(k)
        result = torch.where(multiplies[k], left * right, torch.addcmul(left, sign[k], right)).clamp(-limit, limit)
        largest = torch.maximum(largest, result.abs())
        slots.join(k, result)
    return slots.whole(), largest < limit


def cells_needed(shapes: Shapes, operators: Tensor) -> Tensor:
    """Fewest memory cells that each tree can be evaluated with (its Ershov number for this machine): int64 [n].

    Args:
        shapes: n rows.
        operators: int64 [n, most], codes in reading order.
    """
    order = shapes.order.long()
    slots = Slots(order, shapes.low.long(), pad(torch.zeros_like(operators), (0, 1)))
    left_leaf, right_leaf = shapes.leaves()
    commutes = in_postorder(order, operators) != SUB
    for k in range(len(commutes)):
        slots.join(k, _cells(*slots.pair(k), left_leaf[k], right_leaf[k], commutes[k]))
    return slots.whole()
