"""Programs that evaluate trees on paper (`paper`).

The evaluation of a subtree begins at one of its numbers and proceeds from there, one operator at a time. If both
operands are compound, the right one is evaluated first, because SUB then has its operands in order; if too few cells
would be free for the left one, the left one is evaluated first. Numbers next to the value are entered with LEFT and
RIGHT:

| left | right | keys |
|---|---|---|
| any | number | left, op, RIGHT |
| number | other | right, op, LEFT; for SUB: right, STO, LEFT, SUB, RIGHT |
| other | other | right, STO, moves, left, op, RIGHT |
| other, first | other | left, STO, moves, right, op, LEFT; for SUB: …, right, STO, LEFT, SUB, RIGHT |

The moves end next to the number that the other operand begins with. The program is not always the shortest one: another
order may need fewer moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.expressions.paper import ANS, CTX, EOS, HERE, LEFT, NEXT, PREV, RIGHT, STO
from modelnative.tasks.expressions.trees import SUB, Shapes, Slots, in_postorder


@dataclass
class NodePlan:
    """How one operator of each of n trees is evaluated, for 0 to K free cells.

    Attributes:
        turned: bool [n, K + 1], whether the right operand is evaluated first.
        sooner, later: int64 [n, K + 1], keys of the operand that is evaluated first, and of the other.
        steps: int64 [n, K + 1], keys between them: STO and the moves.
    """

    turned: Tensor
    sooner: Tensor
    later: Tensor
    steps: Tensor


def paper_program(shapes: Shapes, operators: Tensor, cells: Tensor, most_cells: int, length: int) -> Tensor:
    """A program that evaluates each tree: int64 [n, length], padded with EOS.

    Args:
        shapes: n rows.
        operators: int64 [n, most], codes in reading order.
        cells: int64 [n], number of cells, at least as many as the tree needs.
        most_cells: upper bound of `cells`.
        length: upper bound of the program lengths; six keys for each operator are enough.
    """
    n, most = operators.shape
    codes = in_postorder(shapes.order.long(), operators)
    left_leaf, right_leaf = shapes.leaves()
    nodes, keys, starts = _measured(shapes, codes, most_cells)
    count, start = (x.gather(1, cells[:, None])[:, 0] for x in (keys, starts))
    writer = _ProgramWriter(n, length, operators.device)
    one, always = torch.ones_like(start), start >= 0
    first = (start - 1).clamp_min(0)
    writer.go(torch.zeros_like(first), first, always, one)
    writer.put(first, torch.where(start > 0, RIGHT, HERE), always)
    writer.put(first + count, ANS, always)
    # Each slot holds the place of the subtree's first key and the number of cells in use at that time.
    slots = Slots(shapes.order.long(), shapes.low.long(), torch.zeros_like(one)[:, None, None].repeat(1, most + 1, 2))
    slots.slots[slots.root] = torch.stack([first, most_cells - cells], 1)
    for k in reversed(range(most)):
        here, used = slots.pair(k)[0].unbind(1)
        node, free = nodes[k], (most_cells - used)[:, None]
        turned, sooner, later, steps = (
            x.gather(1, free)[:, 0] for x in (node.turned, node.sooner, node.later, node.steps)
        )
        exists, subtracts = codes[k] > 0, codes[k] == SUB
        both = exists & ~left_leaf[k] & ~right_leaf[k]
        done = here + sooner
        after_number = left_leaf[k] & turned & subtracts  # right, STO, LEFT, SUB, RIGHT
        writer.put(done, STO, both | after_number)
        writer.go(done + 1, steps - 1, both, torch.where(turned, -one, one))
        second = done + steps
        writer.put(second, torch.where(turned, LEFT, RIGHT), both)
        end = torch.where(both, second + later, done)
        after_both = both & ~turned & subtracts  # left, …, right, STO, LEFT, SUB, RIGHT
        writer.put(end, STO, after_both)
        again = after_number | after_both
        writer.put(end + 1, LEFT, again)
        end = end + 2 * again.long()
        writer.put(end, codes[k] + CTX, exists)
        writer.put(end + 1, torch.where(right_leaf[k] | again | (both & turned), RIGHT, LEFT), exists)
        earlier = torch.stack([here, used], 1)
        other = torch.stack([torch.where(both, second, here), used + both.long()], 1)
        slots.split(k, torch.where(turned[:, None], other, earlier), torch.where(turned[:, None], earlier, other))
    return writer.written()


def _measured(shapes: Shapes, codes: Tensor, most_cells: int) -> tuple[list[NodePlan], Tensor, Tensor]:
    """The plans in postorder, and the length and first number of each tree: both int64 [n, K + 1]."""
    order = shapes.order.long()
    leaf = torch.arange(order.shape[1] + 1, device=order.device).expand(len(order), -1)
    # Each slot holds the length of the subtree, the number it begins with, and the cells that it needs.
    columns = torch.stack([torch.ones_like(leaf), leaf, torch.zeros_like(leaf)], 2)
    slots = Slots(order, shapes.low.long(), columns[:, :, None].repeat(1, 1, most_cells + 1, 1))
    free = torch.arange(most_cells + 1, device=order.device)
    leaves, nodes = shapes.leaves(), []
    for k in range(order.shape[1]):
        left, right = slots.pair(k)
        left_leaf, right_leaf = (leaf[k][:, None] for leaf in leaves)
        # With one cell less; the column for 0 cells is never used.
        less_left, less_right = (torch.cat([x[:, :1], x[:, :-1]], 1) for x in (left, right))
        subtracts, middle = (codes[k] == SUB)[:, None], order[:, k, None]
        turned = ((right[..., 2] <= free) & (left[..., 2] < free) | left_leaf) & ~right_leaf
        turn = turned[..., None]
        first, second = torch.where(turn, right, left), torch.where(turn, less_left, less_right)
        steps = torch.where(turned, middle + 1 - second[..., 1], second[..., 1] - middle)
        node = NodePlan(turned, first[..., 0], second[..., 0], steps)
        alone = first[..., 0] + 2 + 2 * (subtracts & turned)
        both = first[..., 0] + steps + second[..., 0] + 2 + 2 * (subtracts & ~turned)
        held = torch.where(subtracts, right[..., 2].clamp_min(1), right[..., 2])
        fewest = torch.minimum(torch.maximum(left[..., 2], held + 1), torch.maximum(right[..., 2], left[..., 2] + 1))
        needs = torch.where(right_leaf, left[..., 2], torch.where(left_leaf, held, fewest))
        slots.join(k, torch.stack([torch.where(left_leaf | right_leaf, alone, both), first[..., 1], needs], 2))
        nodes.append(node)
    length, start, _ = slots.whole().unbind(2)
    return nodes, length, start


class _ProgramWriter:
    """n programs whose keys are written in any order."""

    def __init__(self, n: int, length: int, device: torch.device) -> None:
        self.past = length  # the place of keys that are not written
        self.keys = torch.full((n, length + 1), EOS, device=device)
        self.moving = torch.zeros_like(self.keys)  # its cumulative sum is 1 for NEXT, −1 for PREV

    def put(self, place: Tensor, key: Tensor | int, there: Tensor) -> None:
        """Write a key at `place`, int64 [n], in the rows of `there`, bool [n]."""
        keys = key if isinstance(key, Tensor) else torch.full_like(place, key)
        self.keys.scatter_(1, torch.where(there, place, self.past)[:, None], keys[:, None])

    def go(self, place: Tensor, moves: Tensor, there: Tensor, sign: Tensor) -> None:
        """Write a number of moves from `place` on: NEXT where `sign` is 1, PREV where it is −1."""
        for at, change in ((place, sign), (place + moves, -sign)):
            self.moving.scatter_add_(1, torch.where(there, at, self.past)[:, None], change[:, None])

    def written(self) -> Tensor:
        """The programs: int64 [n, length]."""
        moving = self.moving.cumsum(1)
        return torch.where(moving > 0, NEXT, torch.where(moving < 0, PREV, self.keys))[:, : self.past]
