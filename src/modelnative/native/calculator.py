"""The pocket calculator as two operators: `calculator_step` and `calculator_display`.

What the keys do is documented in `modelnative.tasks.calculator`.

`rules` says what each key does in each mode of the calculator. It is an int32 tensor [2, modes, keys]: the first half
holds for results that fit the display, the second half for results that do not. Each element is a word of bits:

| bits | meaning |
|---|---|
| 0–3 | the digit that the key types |
| 4–7 | the memory cell that the key recalls or stores to |
| `RECALLS` | the key types the content of that cell |
| `JOINS` | the digit is appended to the entry |
| `TYPES` | the key changes the entry |
| `OPERATES` | the value is copied to the accumulator |
| `STORES` | the value is also copied to the cell |
| `DONE`, `ANSWERS`, `INVALID` | the episode is over; the key gives the answer; the key has no effect |
| 16– | the mode after the key |

Bits 4 and 5 of a mode are the pending operator: 0 for none, `MUL`, `ADD` or `SUB`.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from modelnative.native.operators import Call, Kernel, Saved, operator, struct_fields

DIGITS = 8  # of the display
PLACES = DIGITS + 1  # tokens of the display: a sign and the digits
LIMIT = 10**DIGITS
EMPTY = LIMIT  # marks the absence of a value: one more than the largest value
HALF = 10**4  # the display is looked up in two halves of four digits
BITS = 7  # of a token in a display word
CELL, PENDING, MODE = 4, 4, 16  # the first bit of a cell in a word, of an operator in a mode, of a mode in a word
RECALLS, JOINS, TYPES, OPERATES, STORES, DONE, ANSWERS, INVALID = (1 << bit for bit in range(8, 16))
MUL, ADD, SUB = 1, 2, 3  # pending operators
RECIPROCAL = -(-(2**45) // HALF)

Stepped: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@operator("calculator")
def calculator_step(
    rules: Tensor,
    mode: Tensor,
    entry: Tensor,
    accumulator: Tensor,
    cells: Tensor,
    value: Tensor,
    target: Tensor,
    action: Tensor,
) -> Stepped:
    """Press one key of each of n calculators.

    Args:
        rules: int32 [2, modes, keys], see the module.
        mode, entry, accumulator, value: int64 [n], the registers; `value` is `EMPTY` where there is no value.
        cells: int64 [n, K], the memory cells.
        target: int64 [n], the right answers.
        action: int64 [n], the keys.

    Returns:
        `mode`, `entry`, `accumulator`, `cells` and `value` after the key; `done`, `success` and `invalid`, bool [n].
    """
    _, modes, keys = rules.shape
    words = rules.flatten()
    row = torch.add(action, mode, alpha=keys)
    word = words.index_select(0, row)
    cell = (word >> CELL & 15).long()[:, None]
    digit = torch.where(word & JOINS > 0, 10 * entry, 0) + (word & 15)
    typed = torch.where(word & RECALLS > 0, cells.gather(1, cell)[:, 0], digit)
    pending = mode >> PENDING & 3
    left = torch.where(pending > 0, accumulator, 0)
    total = left + torch.where(pending == SUB, -typed, typed)
    result = torch.where(pending == MUL, left * typed, total)
    word = words.index_select(0, torch.add(row, result.abs() >= LIMIT, alpha=modes * keys))
    types, operates, stores, done, answers, invalid = (
        word & bit > 0 for bit in (TYPES, OPERATES, STORES, DONE, ANSWERS, INVALID)
    )
    shown = torch.where(types, result, value)
    here = (torch.arange(cells.shape[1], device=cells.device) == cell) & stores[:, None]
    return (
        (word >> MODE).long(),
        torch.where(types, typed, entry),
        torch.where(operates, value, accumulator),
        torch.where(here, value[:, None], cells),
        shown,
        done,
        answers & (shown == target),
        invalid,
    )


@operator("calculator")
def calculator_display(upper: Tensor, lower: Tensor, value: Tensor) -> Tensor:
    """The display of each of n calculators: a sign and eight digits without leading zeros, or blank.

    Args:
        upper: int64 [2 · HALF + 2], display words: the sign and the upper digits of 0 to 9999, blank for 0; a blank
            word; the same again for negative values.
        lower: int64 [2 · HALF + 1], display words: the lower digits of 0 to 9999 without, then with leading zeros; a
            blank word.
        value: int64 [n], each smaller than `LIMIT` in size, or `EMPTY`.

    Returns:
        int64 [n, PLACES], tokens.
    """
    size = value.abs()
    # size // HALF, exact below 2³⁵: a processor multiplies eight numbers in the time of one division.
    high = (size * RECIPROCAL) >> 45
    # Below nonzero upper digits the lower ones have leading zeros: the rows from HALF on. EMPTY is the last row.
    low = torch.sub(size, (high - 1).clamp(0, HALF - 2), alpha=HALF)
    # A right shift gives −1 for negative values and 0 for the others.
    high = torch.sub(high, value >> 63, alpha=HALF + 1)
    words = upper.index_select(0, high) | lower.index_select(0, low)
    if torch.compiler.is_compiling():
        # The form below would be compiled to a loop over all places, which looks each word up nine times.
        return torch.stack([words >> BITS * place & 2**BITS - 1 for place in range(PLACES)], 1)
    return (words[:, None] >> torch.arange(0, BITS * PLACES, BITS, device=value.device)) & (2**BITS - 1)


# The kernels


class CalculatorStepCall(Call):
    """As in kernels/calculator.cpp."""

    prefix = "calculator_step"
    _fields_ = struct_fields(
        "rules mode entry accumulator cells value target action", "modes keys calculators memories"
    )


def _step(learns: bool, rules: Tensor, *columns: Tensor) -> tuple[tuple[Tensor, ...], Saved]:
    n, memories = columns[3].shape
    registers, cells = torch.empty(4, n, dtype=torch.int64), torch.empty(n, memories, dtype=torch.int64)
    verdicts = torch.empty(3, n, dtype=torch.bool)
    CalculatorStepCall(rules, *columns, *rules.shape[1:], n, memories).run(
        "calculator_step", registers, cells, verdicts
    )
    mode, entry, accumulator, value = registers.unbind()
    return (mode, entry, accumulator, cells, value, *verdicts.unbind()), ()


class CalculatorDisplayCall(Call):
    """As in kernels/calculator.cpp."""

    prefix = "calculator_display"
    _fields_ = struct_fields("upper lower value", "calculators")


def _display(learns: bool, upper: Tensor, lower: Tensor, value: Tensor) -> tuple[Tensor, Saved]:
    shown = torch.empty(len(value), PLACES, dtype=torch.int64)
    CalculatorDisplayCall(upper, lower, value, len(value)).run("calculator_display", shown)
    return shown, ()


Kernel(
    "calculator_step(Tensor rules, Tensor mode, Tensor entry, Tensor accumulator, Tensor cells, Tensor value, "
    "Tensor target, Tensor action) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _step,
)
Kernel("calculator_display(Tensor upper, Tensor lower, Tensor value) -> Tensor", _display)
