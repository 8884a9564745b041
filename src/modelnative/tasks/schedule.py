"""The shortest program for a tree on a calculator with one accumulator and K memory cells.

After Sethi and Ullman, The generation of optimal code for arithmetic expressions (J. ACM 17, 1970), for a machine whose
operators take what stands in the accumulator and what is then typed: an operand, or a cell recalled. A right operand
that is a leaf is typed; ADD and MUL may take their operands in either order, SUB not. So a tree costs its operands, its
operators, and (STO and RCL being a key each) for each operator, f cells being free:

| left | right | ways | keys more | cells free for each |
|---|---|---|---|---|
| any | leaf | left, op, right | 0 | left f |
| leaf | compound | right, op, left; not for SUB | 0 | right f |
| leaf | compound | right, STO, left, SUB, RCL | 2 | right f ≥ 1 |
| compound | compound | right, STO, left, op, RCL | 2 | right f, left f − 1 |
| compound | compound | left, STO, right, op, RCL; not for SUB | 2 | left f, right f − 1 |
| compound | compound | left, STO, right, STO, RCL, SUB, RCL | 4 | left f, right f − 1 ≥ 1 |

Shortest is meant of programs that evaluate the tree as it stands: each operator is pressed upon the values of its own
two subtrees. One that rearranges the terms may need fewer keys: a − (b + c) is a SUB b SUB c.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.tasks.trees import SUB, Shapes

NEVER = 1 << 20  # keys of what has too few cells


@dataclass
class Lengths:
    """How many keys each subtree takes, by the memory cells that are free: 0 to K.

    Attributes:
        left, right: int64 [most, n, K + 1], of the operands of each operator, in postorder.
        tree: int64 [n, K + 1], of the whole tree; at least `NEVER` where the cells are too few.
    """

    left: Tensor
    right: Tensor
    tree: Tensor


def lengths(shapes: Shapes, operators: Tensor, widths: Tensor, cells: int) -> Lengths:
    """The keys of the shortest programs.

    Args:
        shapes: n rows.
        operators: int64 [n, most], codes in reading order.
        widths: int64 [n, most + 1], keys that each operand takes; 0 where a tree has no leaf.
        cells: K.
    """
    n, most = operators.shape
    order, low = shapes.order.long(), shapes.low.long()
    subtracts = pad(operators, (0, 1)).gather(1, order) == SUB
    left_leaf, right_leaf = shapes.low == shapes.order, shapes.high == shapes.order + 1
    slots = pad(widths, (0, 1))[:, :, None].repeat(1, 1, cells + 1)
    row = torch.arange(n, device=slots.device)
    lefts, rights = [], []
    for k in range(most):
        left, right = slots[row, low[:, k]], slots[row, order[:, k] + 1]
        ways = _ways(left, right, left_leaf[:, k, None], right_leaf[:, k, None], subtracts[:, k, None])
        slots[row, low[:, k]] = torch.stack(ways).amin(0).clamp_max(NEVER)
        lefts.append(left)
        rights.append(right)
    return Lengths(torch.stack(lefts), torch.stack(rights), slots[:, 0])


def _ways(left: Tensor, right: Tensor, left_leaf: Tensor, right_leaf: Tensor, subtracts: Tensor) -> tuple[Tensor, ...]:
    """Keys if the left operand is computed first, and if the right is: int64 [n, K + 1] each."""
    free = torch.arange(left.shape[1], device=left.device)
    left_after = pad(left[:, :-1], (1, 0), value=NEVER)  # one cell being taken
    right_after = pad(right[:, :-1], (1, 0), value=NEVER)
    twice = torch.where(subtracts, torch.where(free >= 2, 2, NEVER), 0)
    left_first = torch.where(right_leaf, left + right + 1, left + 2 + right_after + 1 + twice)
    once = torch.where(subtracts, torch.where(free >= 1, 2, NEVER), 0)
    right_first = torch.where(left_leaf, right + left + 1 + once, right + 2 + left_after + 1)
    return left_first.masked_fill(left_leaf & ~right_leaf, NEVER), right_first.masked_fill(right_leaf, NEVER)


@dataclass
class Keys:
    """The keys of a program and where they go; places past its end are for keys that a tree has not.

    Attributes:
        operand: int64 [n, most + 1], the place of each leaf's first key.
        place: int64 [n, 5 · most], of the other keys.
        key: int64 [n, 5 · most], 1 to 3 for an operator's code; then STO of each cell; then RCL of each.
        end: int64 [n], the place after the last.
    """

    operand: Tensor
    place: Tensor
    key: Tensor
    end: Tensor


def schedule(shapes: Shapes, operators: Tensor, widths: Tensor, cells: int, past: int) -> Keys:
    """The shortest programs; of equally short ones, that which computes the left operand first.

    Args:
        shapes, operators, widths, cells: as in `lengths`.
        past: the place for keys that a tree has not.
    """
    n, most = operators.shape
    size = lengths(shapes, operators, widths, cells)
    order, low = shapes.order.long(), shapes.low.long()
    code = pad(operators, (0, 1)).gather(1, order)
    left_leaf, right_leaf = shapes.low == shapes.order, shapes.high == shapes.order + 1
    start = torch.full((n, most + 2), past, device=code.device)  # of the subtree in each slot
    start[:, 0] = 0
    taken = torch.zeros_like(start)  # cells that are in use when it starts
    row = torch.arange(n, device=code.device)
    store, recall = SUB + 1, SUB + 1 + cells
    places, keys = [], []
    for k in reversed(range(most)):
        at, right_at = low[:, k], order[:, k] + 1
        here, cell, exists = start[row, at], taken[row, at], order[:, k] < most
        free, subtracts = (cells - cell)[:, None], code[:, k] == SUB
        leaves = (left_leaf[:, k, None], right_leaf[:, k, None], subtracts[:, None])
        left_first, right_first = _ways(size.left[k], size.right[k], *leaves)
        turned = (right_first < left_first).gather(1, free)[:, 0]
        stores = ~(left_leaf[:, k] | right_leaf[:, k]) | (turned & left_leaf[:, k] & subtracts)
        twice = stores & subtracts & ~turned
        own, less = (torch.where(turned[:, None], *pair) for pair in _both(size.right[k], size.left[k]))
        # first [STO] second ([STO RCL op RCL] | [op RCL] | nothing: then the operator stands before the second).
        stored = here + own.gather(1, free)[:, 0]
        second = stored + 1
        after = second + less.gather(1, free - stores[:, None].long())[:, 0]
        operates = torch.where(twice, after + 2, torch.where(stores, after, stored))
        for key, place, given in (
            (code[:, k], operates, exists),
            (store + cell, stored, stores),
            (recall + cell, after + 1, stores),
            (store + cell + 1, after, twice),
            (recall + cell + 1, after + 3, twice),
        ):
            keys.append(key)
            places.append(torch.where(given & exists, place, past))
        start[row, at] = torch.where(turned, second, here)
        start[row, right_at] = torch.where(turned, here, second)
        below = cell + stores.long()
        taken[row, at] = torch.where(turned, below, cell)
        taken[row, right_at] = torch.where(turned, cell, below)
    return Keys(start[:, :-1], torch.stack(places, 1), torch.stack(keys, 1), size.tree[:, cells])


def _both(one: Tensor, other: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return (one, other), (other, one)
