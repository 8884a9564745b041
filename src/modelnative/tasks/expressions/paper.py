"""A calculator beside a sheet of paper: the text is read through a window, and what is worked out is struck out.

The text stands on the paper as items in a row, numbers at first, with operators and brackets between them. The window
shows the item at the cursor and its neighbours. A number that is entered while an operator waits, and that stands
beside the value, becomes one item with it; brackets around one item vanish.

| key | effect |
|---|---|
| PREV NEXT | move the cursor by an item |
| HERE LEFT RIGHT | go to the item at the cursor or beside it and enter its number: value = value ∘ number when an \
operator waits, else value = number |
| MUL ADD SUB | the key waits; no effect while another one does |
| STO | keep the value in a free cell; its item says so, and can be entered like a number, which frees the cell |
| ANS | ends the episode with the value as the answer |
| EOS | ends the episode without an answer |
| any other | no effect |

MUL, ADD, SUB and STO have no effect without a value, nor STO when all cells are taken, nor a move or a number where
there is none, nor a key whose result needs more than eight digits. A value that neither is kept nor stands beside the
number that is entered is lost, and its item is struck out. Every key, also one without effect, uses up one of six for
each operator; after the last of them the paper is taken away. An agent that presses one key for ever would else be
saved by chance for as long as it learns, and only then fail.
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
WINDOW = 10  # tokens that are seen

# An item is a word: its kind, the operator after it, the brackets that open before it and close after it, its value.
NONE, NUMBER, VALUE, KEPT, GONE = range(5)  # kinds
SIGN, OPENS, CLOSES, HELD = 3, 5, 9, 16  # where in the word the others begin
MARGIN = 2  # places without an item at each side, so that the window never looks past the end
SIGNS = ("", "*", "+", "-")


@dataclass
class Sheet(Batch):
    """n sheets with their calculators.

    Attributes:
        items: int64 [n, S + 4], a word each, from the third on.
        cursor: int64 [n], where in `items` it is.
        live: int64 [n], which item is the value; 0 without one.
        free: int64 [n], cells that are.
        waits: int64 [n], the operator, 1 to 3; 0 for none.
        keys: int64 [n], how many may still be pressed; 0 once the episode is over.
        answered: bool [n], it ended with an answer.
    """

    items: Tensor
    cursor: Tensor
    live: Tensor
    free: Tensor
    waits: Tensor
    keys: Tensor
    answered: Tensor

    @property
    def value(self) -> Tensor:
        """The value, 0 without one: int64 [n]."""
        return _at(self.items, self.live) >> HELD


def _at(items: Tensor, place: Tensor) -> Tensor:
    return items.gather(1, place[:, None])[:, 0]


def sheet(shapes: Shapes, operators: Tensor, operands: Tensor, cells: Tensor) -> Sheet:
    """The text of each tree on a new sheet, the cursor at its first number.

    Args:
        shapes: n rows.
        operators: int64 [n, most], codes in reading order.
        operands: int64 [n, most + 1], 0 after the last.
        cells: int64 [n], how many there are.
    """
    opens, closes = brackets(shapes, operators)
    word = NUMBER + (pad(operators, (0, 1)) << SIGN) + (opens.long() << OPENS) + (closes.long() << CLOSES)
    items = pad(torch.where(operands > 0, word + (operands << HELD), 0), (MARGIN, MARGIN))
    none = torch.zeros_like(cells)
    keys = BUDGET * (operators > 0).sum(1)
    return Sheet(items, none + MARGIN, none, cells, none, keys, none > 0)


def press(state: Sheet, key: Tensor) -> Sheet:
    """The sheets after a key, int64 [n]."""
    running, has_value, waits = state.keys > 0, state.live > 0, state.waits
    forward, backward = (key == NEXT) | (key == RIGHT), (key == PREV) | (key == LEFT)
    place = state.cursor + forward.long() - backward.long()
    item, own = _at(state.items, place), _at(state.items, state.live)
    kind, number, value = item & 7, item >> HELD, own >> HELD
    combines = waits > 0
    result = torch.where(waits == MUL, value * number, torch.where(waits == SUB, value - number, value + number))
    result = torch.where(combines, result, number)
    enters = running & (key >= HERE) & (key <= RIGHT) & ((kind == NUMBER) | (kind == KEPT)) & (result.abs() < LIMIT)
    moves = running & ((key == PREV) | (key == NEXT)) & (kind != NONE)
    operates = running & (key >= MUL) & (key <= SUB) & has_value & ~combines
    stores = running & (key == STO) & has_value & (state.free > 0)
    answers, ends = running & (key == ANS), running & (key == EOS)

    # The value's item, unless it becomes one with the number's, is kept or struck out.
    joins = enters & combines & ((place - state.live).abs() == 1)
    fate = torch.where(stores, KEPT, torch.where(enters & ~joins & has_value, GONE, own & 7))
    items = state.items.scatter(1, state.live[:, None], (own - (own & 7) + fate)[:, None])
    entered = (item & (1 << HELD) - 1) - kind + VALUE + (result << HELD)
    items = items.scatter(1, torch.where(enters, place, 0)[:, None], torch.where(enters, entered, 0)[:, None])
    low = torch.where(joins, place.minimum(state.live), 0)
    # Few keys join: where a look at the data is free, only their rows are worked on.
    rows = joins.nonzero()[:, 0] if key.device.type == "cpu" else torch.arange(len(key), device=key.device)
    items = items.index_copy(0, rows, _joined(*(x.index_select(0, rows) for x in (items, low, result))))
    there = torch.where(joins, low, place)
    return Sheet(
        items=items,
        cursor=torch.where(enters | moves, there, state.cursor),
        live=torch.where(enters, there, torch.where(stores, 0, state.live)),
        free=state.free - stores.long() + (enters & (kind == KEPT)).long(),
        waits=torch.where(operates, key - CTX, torch.where(enters | stores, 0, waits)),
        keys=torch.where(answers | ends, 0, (state.keys - 1).clamp_min(0)),
        answered=state.answered | (answers & has_value),
    )


def _joined(items: Tensor, low: Tensor, result: Tensor) -> Tensor:
    """One item in place of those at `low` and `low` + 1, int64 [n]; as they are where `low` is 0."""
    left, right = _at(items, low), _at(items, low + 1)
    opens, closes = (((left >> bit) & 15) + ((right >> bit) & 15) for bit in (OPENS, CLOSES))
    around = opens.minimum(closes)
    word = VALUE + (right & 3 << SIGN) + (opens - around << OPENS) + (closes - around << CLOSES) + (result << HELD)
    place = torch.arange(items.shape[1], device=items.device)
    from_there = place + ((place > low[:, None]) & (low[:, None] > 0)).long()
    moved = items.gather(1, from_there.clamp_max(len(place) - 1))
    return moved.scatter(1, low[:, None], torch.where(low > 0, word, 0)[:, None])


def window(state: Sheet) -> Tensor:
    """What is seen, from left to right: int64 [n, 10].

    The operator before the left neighbour; then of the left neighbour, of the item at the cursor and of the right
    neighbour the bracket, what it is, and the operator after it. Brackets open before an item or close after it, never
    both, and several look like one.
    """
    places = state.cursor[:, None] + torch.arange(-2, 2, device=state.cursor.device)
    near = state.items.gather(1, places) & (1 << HELD) - 1
    return _looks(near.device).index_select(0, near.flatten()).view(len(near), -1)[:, 2:]


@functools.cache
def _looks(device: torch.device) -> Tensor:
    """Bracket, kind and operator of every item: int64 [2¹⁶, 3]."""
    item = torch.arange(1 << HELD)
    kind, sign, opens, closes = item & 7, item >> SIGN & 3, item >> OPENS & 15, item >> CLOSES & 15
    bracket = torch.where(opens > 0, OPEN, torch.where(closes > 0, CLOSE, EOS))
    kinds = torch.where((kind > NONE) & (kind <= GONE), kind + (NUM - NUMBER), EOS)
    return torch.stack([bracket, kinds, torch.where(sign > 0, sign + CTX, EOS)], 1).to(device)


def described(state: Sheet, i: int) -> dict[str, str]:
    """Sheet i for people, the cursor in square brackets."""
    text, cursor, live = "", int(state.cursor[i]), int(state.live[i])
    for place, item in enumerate(state.items[i].tolist()):
        kind, value = item & 7, str(item >> HELD)
        if kind == NONE:
            continue
        said = {NUMBER: value, VALUE: f"={value}", KEPT: f"M{value}", GONE: "×"}[kind]
        said = "(" * (item >> OPENS & 15) + (f"[{said}]" if place == cursor else said) + ")" * (item >> CLOSES & 15)
        text += said + SIGNS[item >> SIGN & 3]
    waits = VOCABULARY[CTX + int(state.waits[i])] if int(state.waits[i]) else ""
    shown = str(int(state.value[i])) if live else ""
    cells, keys = str(int(state.free[i])), str(int(state.keys[i]))
    return {"paper": text, "pending": waits, "free cells": cells, "keys left": keys, "display": shown}
