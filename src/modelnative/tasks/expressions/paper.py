"""A calculator and a sheet of paper: the text is read through a window and is simplified while it is evaluated.

The text is a row of items, numbers at first, with operators and brackets between them. The window shows the item at the
cursor and its two neighbors. When a number is entered while an operator is pending, and the number is next to the
value, both become one item. Brackets around a single item are removed.

| key | effect |
|---|---|
| PREV NEXT | move the cursor by one item |
| HERE LEFT RIGHT | move to the item at the cursor or to its neighbor, and enter its number: value = value ∘ number if \
an operator is pending, otherwise value = number |
| MUL ADD SUB | the operator is pending; no effect if one is pending already |
| STO | stores the value in a free cell; its item is marked and can be entered like a number, which frees the cell |
| ANS | ends the episode with the value as the answer |
| EOS | ends the episode without an answer |
| any other | no effect |

Further keys without effect are: MUL, ADD, SUB and STO without a value, STO without a free cell, a move beyond the ends,
entering an item that is no number, and a key whose result needs more than eight digits. A value is lost, and its item
marked as lost, when another number is entered that does not combine with it. An episode has a budget of six keys for
each operator of its expression. Every key uses up one of them, and the episode ends after the last. Without the budget,
a sampled policy that repeats one key would be rescued by an occasional random key during training and would fail only
when it is evaluated greedily.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.tasks.calculator import LIMIT
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.expressions.infix import brackets
from modelnative.tasks.expressions.trees import Shapes

VOCABULARY = (
    *("CTX", "MUL", "ADD", "SUB", "ANS", "STO", "PREV", "NEXT", "HERE", "LEFT", "RIGHT"),
    *("NUM", "VAL", "MEM", "LOST", "(", ")", "EOS"),
)
CTX, MUL, ADD, SUB, ANS, STO, PREV, NEXT, HERE, LEFT, RIGHT, NUM, VAL, MEM, LOST, OPEN, CLOSE, EOS = range(18)
BUDGET = 6  # keys for each operator
WINDOW = 10  # tokens of the window

# An item is packed into an int64: its kind, the operator after it, the brackets opening before and closing after it,
# and its value.
NONE, NUMBER, VALUE, KEPT, GONE = range(5)  # kinds
SIGN, OPENS, CLOSES, HELD = 3, 5, 9, 16  # the first bit of each; the kind begins at bit 0
MARGIN = 2  # empty places on each side, so that the window never reaches beyond the row
SIGNS = ("", "*", "+", "-")


@dataclass
class PaperState(Batch):
    """The sheets and calculators of n episodes.

    Attributes:
        items: int64 [n, S + 4], the packed items, between two empty places on each side.
        cursor: int64 [n], index into `items`.
        current: int64 [n], index of the item that is the value; 0 if there is none.
        free_cells: int64 [n].
        pending: int64 [n], code of the pending operator, 1 to 3; 0 for none.
        keys_left: int64 [n], the rest of the budget; 0 once the episode is over.
        answered: bool [n], whether the episode ended with an answer.
    """

    items: Tensor
    cursor: Tensor
    current: Tensor
    free_cells: Tensor
    pending: Tensor
    keys_left: Tensor
    answered: Tensor

    @property
    def value(self) -> Tensor:
        """The value, 0 if there is none: int64 [n]."""
        return _at(self.items, self.current) >> HELD


def _at(items: Tensor, place: Tensor) -> Tensor:
    return items.gather(1, place[:, None])[:, 0]


def begin(shapes: Shapes, operators: Tensor, operands: Tensor, cells: Tensor) -> PaperState:
    """Write the text of each tree on a new sheet, with the cursor at its first number.

    Args:
        shapes: n rows.
        operators: int64 [n, most], codes in reading order.
        operands: int64 [n, most + 1], 0 after the last.
        cells: int64 [n], number of memory cells.
    """
    opens, closes = brackets(shapes, operators)
    word = NUMBER + (pad(operators, (0, 1)) << SIGN) + (opens.long() << OPENS) + (closes.long() << CLOSES)
    items = pad(torch.where(operands > 0, word + (operands << HELD), 0), (MARGIN, MARGIN))
    none = torch.zeros_like(cells)
    keys = BUDGET * (operators > 0).sum(1)
    return PaperState(items, none + MARGIN, none, cells, none, keys, none > 0)


def press(state: PaperState, key: Tensor) -> PaperState:
    """Press one key, int64 [n], of each episode."""
    running, has_value, pending = state.keys_left > 0, state.current > 0, state.pending
    forward, backward = (key == NEXT) | (key == RIGHT), (key == PREV) | (key == LEFT)
    place = state.cursor + forward.long() - backward.long()
    item, own = _at(state.items, place), _at(state.items, state.current)
    kind, number, value = item & 7, item >> HELD, own >> HELD
    combines = pending > 0
    result = torch.where(pending == MUL, value * number, torch.where(pending == SUB, value - number, value + number))
    result = torch.where(combines, result, number)
    enters = running & (key >= HERE) & (key <= RIGHT) & ((kind == NUMBER) | (kind == KEPT)) & (result.abs() < LIMIT)
    moves = running & ((key == PREV) | (key == NEXT)) & (kind != NONE)
    operates = running & (key >= MUL) & (key <= SUB) & has_value & ~combines
    stores = running & (key == STO) & has_value & (state.free_cells > 0)
    answers, ends = running & (key == ANS), running & (key == EOS)

    # The item of the value is stored or lost, unless it is joined with that of the number.
    joins = enters & combines & ((place - state.current).abs() == 1)
    kind_after = torch.where(stores, KEPT, torch.where(enters & ~joins & has_value, GONE, own & 7))
    items = state.items.scatter(1, state.current[:, None], (own - (own & 7) + kind_after)[:, None])
    entered = (item & (1 << HELD) - 1) - kind + VALUE + (result << HELD)
    items = items.scatter(1, torch.where(enters, place, 0)[:, None], torch.where(enters, entered, 0)[:, None])
    low = torch.where(joins, place.minimum(state.current), 0)
    # Few keys join items. On the CPU, where reading the data needs no synchronization, only those rows are processed.
    rows = joins.nonzero()[:, 0] if key.device.type == "cpu" else torch.arange(len(key), device=key.device)
    items = items.index_copy(0, rows, _joined(*(x.index_select(0, rows) for x in (items, low, result))))
    there = torch.where(joins, low, place)
    return PaperState(
        items=items,
        cursor=torch.where(enters | moves, there, state.cursor),
        current=torch.where(enters, there, torch.where(stores, 0, state.current)),
        free_cells=state.free_cells - stores.long() + (enters & (kind == KEPT)).long(),
        pending=torch.where(operates, key - CTX, torch.where(enters | stores, 0, pending)),
        keys_left=torch.where(answers | ends, 0, (state.keys_left - 1).clamp_min(0)),
        answered=state.answered | (answers & has_value),
    )


def _joined(items: Tensor, low: Tensor, result: Tensor) -> Tensor:
    """Replace the items at `low` and `low` + 1 by one, where `low`, int64 [n], is not 0."""
    left, right = _at(items, low), _at(items, low + 1)
    opens, closes = (((left >> bit) & 15) + ((right >> bit) & 15) for bit in (OPENS, CLOSES))
    around = opens.minimum(closes)
    word = VALUE + (right & 3 << SIGN) + (opens - around << OPENS) + (closes - around << CLOSES) + (result << HELD)
    place = torch.arange(items.shape[1], device=items.device)
    from_there = place + ((place > low[:, None]) & (low[:, None] > 0)).long()
    moved = items.gather(1, from_there.clamp_max(len(place) - 1))
    return moved.scatter(1, low[:, None], torch.where(low > 0, word, 0)[:, None])


def window(state: PaperState) -> Tensor:
    """The tokens of the window, from left to right: int64 [n, 10].

    These are the operator before the left neighbor, and then for the left neighbor, for the item at the cursor and for
    the right neighbor: the bracket, the kind of the item and the operator after it. Brackets open before an item or
    close after it, never both. Several brackets look like one.
    """
    places = state.cursor[:, None] + torch.arange(-2, 2, device=state.cursor.device)
    near = state.items.gather(1, places) & (1 << HELD) - 1
    return _item_tokens(near.device).index_select(0, near.flatten()).unflatten(0, near.shape).flatten(1)[:, 2:]


@functools.cache
def _item_tokens(device: torch.device) -> Tensor:
    """The tokens of every packed item without its value: bracket, kind and operator, int64 [2¹⁶, 3]."""
    item = torch.arange(1 << HELD)
    kind, sign, opens, closes = item & 7, item >> SIGN & 3, item >> OPENS & 15, item >> CLOSES & 15
    bracket = torch.where(opens > 0, OPEN, torch.where(closes > 0, CLOSE, EOS))
    kinds = torch.where((kind > NONE) & (kind <= GONE), kind + (NUM - NUMBER), EOS)
    return torch.stack([bracket, kinds, torch.where(sign > 0, sign + CTX, EOS)], 1).to(device)


def registers(state: PaperState, i: int) -> dict[str, str]:
    """The sheet of episode i as text, with the cursor in square brackets, and the registers."""
    text, cursor = "", int(state.cursor[i])
    for place, item in enumerate(state.items[i].tolist()):
        kind, value = item & 7, str(item >> HELD)
        if kind == NONE:
            continue
        word = {NUMBER: value, VALUE: f"={value}", KEPT: f"M{value}", GONE: "×"}[kind]
        word = "(" * (item >> OPENS & 15) + (f"[{word}]" if place == cursor else word) + ")" * (item >> CLOSES & 15)
        text += word + SIGNS[item >> SIGN & 3]
    return {
        "paper": text,
        "pending": VOCABULARY[CTX + int(state.pending[i])] if int(state.pending[i]) else "",
        "free cells": str(int(state.free_cells[i])),
        "keys left": str(int(state.keys_left[i])),
        "display": str(int(state.value[i])) if int(state.current[i]) else "",
    }
