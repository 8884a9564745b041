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

from modelnative.tasks.expressions.trees import SUB, Shapes, Slots, in_postorder

NEVER = 1 << 20  # keys of what has too few cells


@dataclass
class Lengths:
    """How many keys each subtree takes, by the memory cells that are free: 0 to K.

    Attributes:
        left, right: int64 [most, n, K + 1], of the operands of each operator, in postorder.
        turned: bool [most, n, K + 1], the right operand is computed first, because that takes fewer keys.
        tree: int64 [n, K + 1], of the whole tree; at least `NEVER` where the cells are too few.
    """

    left: Tensor
    right: Tensor
    turned: Tensor
    tree: Tensor


def lengths(shapes: Shapes, operators: Tensor, widths: Tensor, cells: int) -> Lengths:
    """The keys of the shortest programs.

    Args:
        shapes: n rows.
        operators: int64 [n, most], codes in reading order.
        widths: int64 [n, most + 1], keys that each operand takes; 0 where a tree has no leaf.
        cells: K.
    """
    order = shapes.order.long()
    slots = Slots(order, shapes.low.long(), widths[:, :, None].expand(-1, -1, cells + 1))
    subtracts = (in_postorder(order, operators) == SUB)[:, :, None]
    left_leaf, right_leaf = (
        (shapes.low == shapes.order).t()[:, :, None],
        (shapes.high == shapes.order + 1).t()[:, :, None],
    )
    free = torch.arange(cells + 1, device=order.device)
    # Keys more for a right operand that is stored before a SUB, with nothing else in the cells, or with the left one.
    once, twice = (torch.where(subtracts, torch.where(free >= least, 2, NEVER), 0) for least in (1, 2))
    lefts: list[Tensor] = []
    rights: list[Tensor] = []
    turns: list[Tensor] = []
    for k in range(len(subtracts)):
        left, right = slots.pair(k)
        left_after, right_after = (pad(t[:, :-1], (1, 0), value=NEVER) for t in (left, right))  # one cell being taken
        plain = left + right + 1
        left_first = torch.where(right_leaf[k], plain, left + right_after + twice[k] + 3)
        left_first = left_first.masked_fill(left_leaf[k] & ~right_leaf[k], NEVER)
        right_first = torch.where(left_leaf[k], plain + once[k], right + left_after + 3)
        turned = (right_first < left_first) & ~right_leaf[k]
        slots.join(k, torch.where(turned, right_first, left_first).clamp_max(NEVER))
        for column, value in ((lefts, left), (rights, right), (turns, turned)):
            column.append(value)
    return Lengths(torch.stack(lefts), torch.stack(rights), torch.stack(turns), slots.whole())


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
    codes = in_postorder(order, operators)
    left_leaf, right_leaf = (shapes.low == shapes.order).t(), (shapes.high == shapes.order + 1).t()
    # In each slot the place where its subtree's keys start, and the cells that are in use then.
    slots = Slots(order, low, torch.tensor([past, 0], device=order.device).repeat(n, most + 1, 1))
    slots.slots[slots.root] = 0
    store, recall = SUB + 1, SUB + 1 + cells
    places, keys = [], []
    for k in reversed(range(most)):
        here, cell = slots.pair(k)[0].unbind(1)
        exists, subtracts = codes[k] > 0, codes[k] == SUB
        free = (cells - cell)[:, None]
        turned = size.turned[k].gather(1, free)[:, 0]
        stores = ~(left_leaf[k] | right_leaf[k]) | (turned & left_leaf[k] & subtracts)
        twice = stores & subtracts & ~turned
        first = torch.where(turned[:, None], size.right[k], size.left[k])
        other = torch.where(turned[:, None], size.left[k], size.right[k])
        # After the first operand [STO] second [STO RCL op RCL | op RCL]; where nothing is stored, op second.
        stored = here + first.gather(1, free)[:, 0]
        after = stored + 1 + other.gather(1, free - stores[:, None].long())[:, 0]
        operates = torch.where(twice, after + 2, torch.where(stores, after, stored))
        for key, place, given in (
            (codes[k], operates, exists),
            (store + cell, stored, stores),
            (recall + cell, after + 1, stores),
            (store + cell + 1, after, twice),
            (recall + cell + 1, after + 3, twice),
        ):
            keys.append(key)
            places.append(torch.where(given & exists, place, past))
        sooner, later = torch.stack([here, cell], 1), torch.stack([stored + 1, cell + stores], 1)
        turn = turned[:, None]
        slots.split(k, torch.where(turn, later, sooner), torch.where(turn, sooner, later))
    start = slots.slots.view(n, most + 2, 2)[:, :-1, 0]
    return Keys(start, torch.stack(places, 1), torch.stack(keys, 1), size.tree[:, cells])
