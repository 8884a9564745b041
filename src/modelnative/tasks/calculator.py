"""The pocket calculator that `arithmetic` and `expressions` share: K memory cells, entries of one or more digits.

The registers are an entry, an accumulator, a pending operator and the memory cells. All are empty at the start. *value*
is accumulator ∘ entry when an operator is pending and there is an entry; otherwise the entry; otherwise the
accumulator; otherwise empty.

| key | effect |
|---|---|
| digit | appended to an entry that was typed and has fewer than `digits` digits; otherwise entry = digit |
| MUL ADD SUB | accumulator = value, pending = the key, entry empty; no effect when value is empty |
| STO1 … STOK | cell = accumulator = value, pending and entry empty; no effect when value is empty |
| RCL1 … RCLK | entry = cell; no effect when the cell is empty |
| ANS | ends the episode with value as the answer |
| EOS | ends the episode without an answer |
| any other | no effect |

A key whose result needs more than eight digits has no effect.

The rules are a table with a row for each mode and key (`PocketCalculator`). The table is applied to a batch by
`modelnative.native.calculator`, which documents its format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.native import calculator as kernels
from modelnative.native.calculator import BITS, DIGITS, EMPTY, HALF, LIMIT, PLACES
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import require

__all__ = ["ANS", "CTX", "EMPTY", "LIMIT", "PLACES", "STO", "CalculatorState", "PocketCalculator"]

CTX, MUL, ADD, SUB, ANS, STO = range(10, 16)

# The bits of a mode: which registers are filled, how the episode ended, the pending operator, how many digits may still
# be appended to the entry (a factor of `digits`), and one bit for each memory cell.
ENTRY, ACCUMULATOR, ANSWERED, ENDED, PENDING, APPENDABLE = 1, 2, 4, 8, 1 << kernels.PENDING, 64
MOST_MODES = 1 << 15  # the rules have 15 bits for a mode


@dataclass
class CalculatorState(Batch):
    """The registers of n calculators.

    Attributes:
        mode: int64 [n], which registers are filled and which operator is pending.
        entry, accumulator: int64 [n], 0 until they are filled.
        cells: int64 [n, K], 0 until they are filled.
        value: int64 [n], *value* of the rules; `EMPTY` if there is none.
    """

    mode: Tensor
    entry: Tensor
    accumulator: Tensor
    cells: Tensor
    value: Tensor

    @property
    def answered(self) -> Tensor:
        """Whether the episode ended with an answer: bool [n]."""
        return (self.mode & ANSWERED > 0) & (self.value != EMPTY)

    def computed_by(self, operator: int) -> Tensor:
        """Whether the value is the result of `operator` (MUL, ADD or SUB) and an entry: bool [n]."""
        return (self.mode & ENTRY > 0) & (self.mode // PENDING % 4 == operator - CTX)


@dataclass
class CalculatorTables(Batch):
    """The rules and the display, as `modelnative.native.calculator` reads them."""

    rules: Tensor
    upper: Tensor
    lower: Tensor


class PocketCalculator:
    """A batch of pocket calculators.

    Args:
        memories: number K of memory cells, at least 1.
        digits: the largest number of digits of an entry that is typed.
        others: names of tokens without effect, placed after the keys and before EOS.

    Attributes:
        vocabulary: digits, CTX, MUL, ADD, SUB, ANS, STO1 to STOK, RCL1 to RCLK, `others`, EOS.
        end: the id of EOS.

    Example:
        >>> machine = PocketCalculator(memories=2)
        >>> target = torch.tensor([-3])
        >>> state = machine.empty(target)
        >>> for key in "3 MUL 4 STO2 9 SUB RCL2 ANS".split():
        ...     state, done, success, _ = machine.press(state, torch.tensor([machine.vocabulary.index(key)]), target)
        >>> state.value.tolist(), done.tolist(), success.tolist()
        ([-3], [True], [True])
    """

    def __init__(self, memories: int, digits: int = 1, others: tuple[str, ...] = ()) -> None:
        allowed = "fewer memories or digits than the rules have room for"
        require((APPENDABLE * digits) << memories <= MOST_MODES, "memories, digits", (memories, digits), allowed)
        cells = range(1, memories + 1)
        keys = (*"0123456789", "CTX", "MUL", "ADD", "SUB", "ANS", *(f"STO{k}" for k in cells))
        self.vocabulary = (*keys, *(f"RCL{k}" for k in cells), *others, "EOS")
        self.memories, self.digits, self.end = memories, digits, len(self.vocabulary) - 1
        self.tables = PerDevice(self._make_tables)

    def empty(self, like: Tensor) -> CalculatorState:
        """The state of n calculators before the first key, on the device of `like`, int64 [n]."""
        zero = torch.zeros_like(like)
        cells = zero.new_zeros(len(zero), self.memories)
        return CalculatorState(zero, zero, zero, cells, torch.full_like(zero, EMPTY))

    def press(
        self, state: CalculatorState, key: Tensor, target: Tensor
    ) -> tuple[CalculatorState, Tensor, Tensor, Tensor]:
        """Press one key of each calculator.

        Args:
            state: of n calculators.
            key: int64 [n].
            target: int64 [n], the right answers.

        Returns:
            The state after the key; `done`, `success` and `invalid` as in `Step`, bool [n] each.
        """
        rules = self.tables(key.device).rules
        mode, entry, accumulator, cells, value, *verdicts = kernels.calculator_step(
            rules, state.mode, state.entry, state.accumulator, state.cells, state.value, target, key
        )
        done, success, invalid = verdicts
        return CalculatorState(mode, entry, accumulator, cells, value), done, success, invalid

    def display(self, value: Tensor) -> Tensor:
        """A sign and eight digits without leading zeros, blank (EOS) when empty: int64 [n] -> tokens int64 [n, 9]."""
        tables = self.tables(value.device)
        return kernels.calculator_display(tables.upper, tables.lower, value)

    def state_groups(self, field: str) -> dict[str, tuple[str, ...]]:
        """See `Task.state_groups`; `field` is the calculator's in the task's state."""
        groups = {"memory register": ["cells"], "accumulator and entry": ["accumulator", "entry", "value"]}
        return {name: tuple(f"{field}.{f}" for f in fields) for name, fields in {**groups, "mode": ["mode"]}.items()}

    def registers(self, state: CalculatorState, i: int) -> dict[str, str]:
        """See `Task.registers`."""
        mode, value = int(state.mode[i]), int(state.value[i])
        operator = mode // PENDING % 4
        filled = mode // (APPENDABLE * self.digits)
        cells = enumerate(state.cells[i].tolist())
        return {
            "entry": str(int(state.entry[i])) if mode & ENTRY else "",
            "accumulator": str(int(state.accumulator[i])) if mode & ACCUMULATOR else "",
            "pending": self.vocabulary[CTX + operator] if operator else "",
            **{f"memory {k + 1}": str(cell) if filled >> k & 1 else "" for k, cell in cells},
            "display": str(value) if value != EMPTY else "",
        }

    def _make_tables(self, device: torch.device) -> CalculatorTables:
        return CalculatorTables(self._rules(), *_display_words(self.end)).to(device)

    def _rules(self) -> Tensor:
        """The rules for every mode and key: int32 [2, modes, keys]."""
        per_cells = APPENDABLE * self.digits  # modes for each set of filled cells
        shape = (2, per_cells << self.memories, len(self.vocabulary))
        overflow, mode, key = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
        running, has_value = mode & ENDED == 0, mode & (ENTRY | ACCUMULATOR) > 0
        appendable, filled = mode // APPENDABLE % self.digits, mode // per_cells
        recall = STO + self.memories
        is_store, is_recall = (key >= STO) & (key < recall), (key >= recall) & (key < recall + self.memories)
        cell = torch.where(is_store, key - STO, torch.where(is_recall, key - recall, 0))
        digit = running & (key < CTX)
        recalls = running & is_recall & (filled >> cell & 1 > 0)
        joins = digit & (appendable > 0)
        types = (digit | recalls) & (overflow == 0)
        operates = running & (key >= MUL) & (key <= SUB) & has_value
        stores = running & is_store & has_value
        ends = running & ((key == ANS) | (key == self.end))
        # `digits` − 1 digits may be appended to the first one, none to an entry that was recalled.
        left = torch.where(recalls, 0, torch.where(joins, appendable - 1, self.digits - 1))
        after = torch.where(types, mode + (left - appendable) * APPENDABLE | ENTRY, mode)
        after = torch.where(operates, filled * per_cells + ACCUMULATOR + (key - CTX) * PENDING, after)
        after = torch.where(stores, (filled | 1 << cell) * per_cells + ACCUMULATOR, after)
        after = torch.where(ends, mode | ENDED | torch.where(key == ANS, ANSWERED, 0), after)
        word = torch.where(digit, key, 0) + (cell << kernels.CELL) + (after << kernels.MODE)
        for bit, holds in (
            (kernels.RECALLS, recalls),
            (kernels.JOINS, joins),
            (kernels.TYPES, types),
            (kernels.OPERATES, operates | stores),
            (kernels.STORES, stores),
            (kernels.DONE, after & ENDED > 0),
            (kernels.ANSWERS, ends & (key == ANS)),
            (kernels.INVALID, running & ~(types | operates | stores | ends)),
        ):
            word = word | bit * holds
        return word.int()


def _display_words(blank: int) -> tuple[Tensor, Tensor]:
    """The display words of the upper and of the lower four digits, `blank` being the token of an empty place."""
    zeros = torch.arange(HALF)[:, None] // torch.tensor([1000, 100, 10, 1]) % 10
    blanks = zeros.masked_fill((zeros.cumsum(1) == 0) & torch.tensor([True, True, True, False]), blank)
    none = torch.full((1, 4), blank)
    upper = torch.cat([none, blanks[1:], none])
    high = torch.cat([pad(upper, (1, 0), value=sign) for sign in (blank, SUB)])
    shifts = BITS * torch.arange(PLACES)
    split = PLACES - DIGITS // 2
    return (high << shifts[:split]).sum(1), (torch.cat([blanks, zeros, none]) << shifts[split:]).sum(1)


# For a language model


def calculator_rules(store: Sequence[str], recall: Sequence[str], digits: int, shown: bool) -> str:
    """Return the keys in words.

    Args:
        store, recall: the names of the keys of the memory cells.
        digits: largest number of digits of an entry.
        shown: whether the display is feedback.
    """
    entry = "a digit replaces the entry" if digits == 1 else f"digits make an entry of at most {digits} digits"
    display = "The display is shown after each key; it is blank while there is no value." if shown else ""
    pairs = ", ".join(f"{s} and {r}" for s, r in zip(store, recall, strict=True))
    return "\n".join(
        filter(
            None,
            (
                "You use a pocket calculator through its keys.",
                f"0 to 9: {entry}.",
                "MUL ADD SUB: multiply, add or subtract. A pending operation is computed first, from left to right: "
                "'2 ADD 3 MUL 4' gives 20.",
                f"{pairs}: store the value in a memory cell, and enter it again. Storing computes the pending "
                "operation.",
                "ANS: answer with the value, which ends the episode. EOS: end the episode without an answer.",
                display,
            ),
        )
    )


def display_text(vocabulary: Sequence[str], row: Sequence[int], end: int) -> str:
    """Return the display as a number; empty if it is blank."""
    return "".join("-" if token == SUB else vocabulary[token] for token in row if token != end)
