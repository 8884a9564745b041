"""The shortest program for a tree on a calculator with one accumulator and K memory cells.

The algorithm follows Sethi and Ullman, The generation of optimal code for arithmetic expressions (J. ACM 17, 1970). The
operators of this machine combine the accumulator with an entry: a typed operand or a recalled cell. ADD and MUL
commute, SUB does not. A program has a key for each digit of the operands, a key for each operator and, for each
operator with f free cells, these additional keys for STO and RCL:

| left | right | program | additional keys | free cells for each |
|---|---|---|---|---|
| any | leaf | left, op, right | 0 | left f |
| leaf | compound | right, op, left; not for SUB | 0 | right f |
| leaf | compound | right, STO, left, SUB, RCL | 2 | right f ≥ 1 |
| compound | compound | right, STO, left, op, RCL | 2 | right f, left f − 1 |
| compound | compound | left, STO, right, op, RCL; not for SUB | 2 | left f, right f − 1 |
| compound | compound | left, STO, right, STO, RCL, SUB, RCL | 4 | left f, right f − 1 ≥ 1 |

The program is the shortest one that evaluates the tree as it is written: each operator is applied to the values of its
own two subtrees. A program that rearranges the terms may need fewer keys: a − (b + c) is a SUB b SUB c.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.tasks.expressions.trees import SUB, Shapes, Slots, in_postorder

NEVER = 1 << 20  # length of a program that needs more cells than there are


@dataclass
class ProgramLengths:
    """Program lengths of each subtree, for 0 to K free memory cells.

    Attributes:
        left, right: int64 [most, n, K + 1], lengths for the operands of each operator, in postorder.
        turned: bool [most, n, K + 1], whether the program is shorter with the right operand first.
        tree: int64 [n, K + 1], lengths for the whole tree; at least `NEVER` where there are too few cells.
    """

    left: Tensor
    right: Tensor
    turned: Tensor
    tree: Tensor


def program_lengths(shapes: Shapes, operators: Tensor, widths: Tensor, cells: int) -> ProgramLengths:
    """Compute the lengths of the shortest programs.

    Args:
        shapes: n rows.
        operators: int64 [n, most], codes in reading order.
        widths: int64 [n, most + 1], digits of each operand; 0 where a tree has no leaf.
        cells: K.
    """
    order = shapes.order.long()
    slots = Slots(order, shapes.low.long(), widths[:, :, None].expand(-1, -1, cells + 1))
    subtracts = (in_postorder(order, operators) == SUB)[:, :, None]
    left_leaf, right_leaf = (leaf[:, :, None] for leaf in shapes.leaves())
    free = torch.arange(cells + 1, device=order.device)
    # Additional keys of a right operand that is stored before a SUB, and of one stored while the left one is stored.
    once, twice = (torch.where(subtracts, torch.where(free >= least, 2, NEVER), 0) for least in (1, 2))
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for k in range(len(subtracts)):
        left, right = slots.pair(k)
        left_after, right_after = (pad(t[:, :-1], (1, 0), value=NEVER) for t in (left, right))  # with one cell less
        plain = left + right + 1
        left_first = torch.where(right_leaf[k], plain, left + right_after + twice[k] + 3)
        left_first = left_first.masked_fill(left_leaf[k] & ~right_leaf[k], NEVER)
        right_first = torch.where(left_leaf[k], plain + once[k], right + left_after + 3)
        turned = (right_first < left_first) & ~right_leaf[k]
        slots.join(k, torch.where(turned, right_first, left_first).clamp_max(NEVER))
        rows.append((left, right, turned))
    lefts, rights, turns = map(torch.stack, zip(*rows, strict=True))
    return ProgramLengths(lefts, rights, turns, slots.whole())


@dataclass
class ProgramLayout:
    """The keys of a program and their places; keys that a tree does not need have the place `past`.

    Attributes:
        operand: int64 [n, most + 1], the place of each leaf's first digit.
        place: int64 [n, 5 · most], the places of the other keys.
        key: int64 [n, 5 · most], these keys: 1 to 3 for operator codes, then STO of each cell, then RCL of each cell.
        end: int64 [n], the place after the last.
    """

    operand: Tensor
    place: Tensor
    key: Tensor
    end: Tensor


def shortest_program(shapes: Shapes, operators: Tensor, widths: Tensor, cells: int, past: int) -> ProgramLayout:
    """Lay out the shortest program of each tree; of equally short ones, that with the left operand first.

    Args:
        shapes, operators, widths, cells: see `program_lengths`.
        past: the place of keys that a tree does not need.
    """
    n, most = operators.shape
    size = program_lengths(shapes, operators, widths, cells)
    order, low = shapes.order.long(), shapes.low.long()
    codes = in_postorder(order, operators)
    left_leaf, right_leaf = shapes.leaves()
    # Each slot holds the place of the subtree's first key and the number of cells in use at that time.
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
        # First operand [STO] second operand [STO RCL op RCL | op RCL]; if nothing is stored: first operand, op, second.
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
    return ProgramLayout(start, torch.stack(places, 1), torch.stack(keys, 1), size.tree[:, cells])
