"""The pocket calculator of `arithmetic`, with K memory cells and operands of several digits.

The registers are an entry, an accumulator, an operator that waits and the cells; all are empty at the start. *value* =
accumulator ∘ entry when an operator waits and there is an entry; else the entry; else the accumulator; else empty.

| key | effect |
|---|---|
| digit | joins the entry if that was typed and has fewer than `digits` digits; else entry = digit |
| MUL ADD SUB | accumulator = value, the key waits, entry empty; no effect when value is empty |
| STO1 … STOK | cell = accumulator = value; no operator, no entry; no effect when value is empty |
| RCL1 … RCLK | entry = cell; no effect when the cell is empty |
| ANS | ends the episode with value as the answer |
| EOS | ends the episode without an answer |
| any other | no effect |

A key whose result needs more than eight digits has no effect either.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch

CTX, MUL, ADD, SUB, ANS, STO = range(10, 16)
DIGITS = 8  # of the display
LIMIT = 10**DIGITS
EMPTY = LIMIT  # stands for no value: one more than any value that there can be
HALF = 10**4  # the display is looked up by its upper and its lower four digits
BITS = 5  # of a token in a word of the display
RECIPROCAL = -(-(2**45) // HALF)

# The bits of a mode: which registers are filled, how the episode ended, which operator waits. Then comes how many
# digits an entry may still be joined by, and a bit for each cell.
ENTRY, ACCUMULATOR, ANSWERED, ENDED, PENDING, JOINED = 1, 2, 4, 8, 16, 64


@dataclass
class Registers(Batch):
    """The registers of n calculators, and a mode that says which of them are filled.

    Attributes:
        mode: int64 [n], the sum of its bits; PENDING counts once for MUL, twice for ADD, three times for SUB.
        entry, accumulator: int64 [n], 0 until they are filled.
        cells: int64 [n, K + 1], 0 until they are filled, and a first one that always is 0.
        value: int64 [n], what `value` of the rules is now; `EMPTY` without one.
    """

    mode: Tensor
    entry: Tensor
    accumulator: Tensor
    cells: Tensor
    value: Tensor

    @property
    def answered(self) -> Tensor:
        """Ended by ANS while there was a value: bool [n]."""
        return (self.mode & ANSWERED > 0) & (self.value != EMPTY)


@dataclass
class Rules(Batch):
    """What each key does. A row for each choice of (result fits the display, mode, key), the key counting fastest.

    Attributes:
        digit: int64, the digit that it types; 0 for other keys.
        reads, writes: int64, the cell that it recalls or stores into; 0 for none.
        shift: int64, 10 if the digit joins the entry, else 0.
        waits: int64, 1 if an operator waits, so that the accumulator counts; else 0.
        sign: int64, of what is typed, in a sum with the accumulator.
        multiplies: bool, what is typed is multiplied instead.
        types, sets, stores: bool, it types; the value goes into the accumulator; or also into a cell.
        mode: int64, after the key.
        done, answers, invalid: bool, the episode is over after it; it ends it with ANS; it has no effect.
    """

    digit: Tensor
    reads: Tensor
    writes: Tensor
    shift: Tensor
    waits: Tensor
    sign: Tensor
    multiplies: Tensor
    types: Tensor
    sets: Tensor
    stores: Tensor
    mode: Tensor
    done: Tensor
    answers: Tensor
    invalid: Tensor


@dataclass
class Display:
    """Digits by four, looked up.

    Attributes:
        high: int64 [20002], the sign and the upper digits: of 0–9999, blank when 0; all blank; the same, negative.
        low: int64 [20001], the lower digits: of 0–9999 with leading blanks, then with leading zeros; then blank.
        shifts: int64 [9], where in such a word each token of the display stands.
    """

    high: Tensor
    low: Tensor
    shifts: Tensor


class PocketCalculator:
    """The rules of the module's docstring, for batches.

    Args:
        memories: K, at least 1.
        digits: the most that an operand has.
        others: names of tokens without an effect, which follow the keys; EOS is the last of the vocabulary.

    Attributes:
        vocabulary: digits, CTX, MUL, ADD, SUB, ANS, STO1 to STOK, RCL1 to RCLK, the others, EOS. With one cell its keys
            are STO1 and RCL1 too.
        end: the id of EOS.

    Example:
        >>> machine = PocketCalculator(memories=2)
        >>> state = machine.empty(torch.zeros(1, dtype=torch.int64))
        >>> for key in "3 MUL 4 STO2 9 SUB RCL2".split():
        ...     state, _ = machine.press(state, torch.tensor([machine.vocabulary.index(key)]))
        >>> int(state.value)
        -3
    """

    def __init__(self, memories: int, digits: int = 1, others: tuple[str, ...] = ()) -> None:
        cells = range(1, memories + 1)
        keys = (*"0123456789", "CTX", "MUL", "ADD", "SUB", "ANS", *(f"STO{k}" for k in cells))
        self.vocabulary = (*keys, *(f"RCL{k}" for k in cells), *others, "EOS")
        self.memories, self.digits, self.end = memories, digits, len(self.vocabulary) - 1
        self._tables: dict[torch.device, tuple[Rules, Display]] = {}

    def empty(self, like: Tensor) -> Registers:
        """n calculators just switched on, on the device of `like`, int64 [n]."""
        zero = torch.zeros_like(like)
        return Registers(zero, zero, zero, zero.new_zeros(len(zero), self.memories + 1), torch.full_like(zero, EMPTY))

    def press(self, state: Registers, key: Tensor) -> tuple[Registers, Tensor]:
        """The registers after a key, int64 [n], and its row of `rules`."""
        rules, _ = self.tables(key.device)
        row = torch.add(key, state.mode, alpha=len(self.vocabulary))
        typed = state.cells.gather(1, rules.reads.index_select(0, row)[:, None])[:, 0]
        typed = typed + rules.digit.index_select(0, row)
        if self.digits > 1:
            typed = torch.addcmul(typed, state.entry, rules.shift.index_select(0, row))
        left = state.accumulator * rules.waits.index_select(0, row)
        total = torch.addcmul(left, rules.sign.index_select(0, row), typed)
        result = torch.where(rules.multiplies.index_select(0, row), left * typed, total)
        row = torch.add(row, result.abs() >= LIMIT, alpha=len(rules) // 2)
        types, stored = rules.types.index_select(0, row), rules.stores.index_select(0, row) * state.value
        after = Registers(
            mode=rules.mode.index_select(0, row),
            entry=torch.where(types, typed, state.entry),
            accumulator=torch.where(rules.sets.index_select(0, row), state.value, state.accumulator),
            cells=state.cells.scatter(1, rules.writes.index_select(0, row)[:, None], stored[:, None]),
            value=torch.where(types, result, state.value),
        )
        return after, row

    def over(self, state: Registers) -> Tensor:
        """Which episodes have ended: bool [n]."""
        return state.mode & ENDED > 0

    def rules(self, device: torch.device) -> Rules:
        """What each key does, on `device`."""
        return self.tables(device)[0]

    def display(self, value: Tensor) -> Tensor:
        """A sign and eight digits, without leading zeros: int64 [n] -> tokens, int64 [n, 9]; blank (EOS) when empty."""
        _, display = self.tables(value.device)
        size = value.abs()
        # Division by 10⁴, exact up to 2³⁵: the processor multiplies eight numbers while it divides one.
        high = (size * RECIPROCAL) >> 45
        # Its upper digits being there, the lower ones show leading zeros: rows from 10⁴ on. EMPTY is row 2·10⁴.
        low = torch.sub(size, (high - 1).clamp(0, HALF - 2), alpha=HALF)
        # A right shift leaves −1 of negative values, 0 of the others.
        high = torch.sub(high, value >> 63, alpha=HALF + 1)
        words = display.high.index_select(0, high) | display.low.index_select(0, low)
        if torch.compiler.is_compiling():
            # The other form would be compiled into a loop over all places, which looks each word up nine times.
            return torch.stack([words >> BITS * place & 2**BITS - 1 for place in range(DIGITS + 1)], 1)
        return (words[:, None] >> display.shifts) & (2**BITS - 1)

    def registers(self, state: Registers, i: int) -> dict[str, str]:
        """As `Task.registers`."""
        mode, value = int(state.mode[i]), int(state.value[i])
        operator = mode // PENDING % 4
        filled = mode // (JOINED * self.digits)
        return {
            "entry": str(int(state.entry[i])) if mode & ENTRY else "",
            "accumulator": str(int(state.accumulator[i])) if mode & ACCUMULATOR else "",
            "pending": self.vocabulary[CTX + operator] if operator else "",
            **{
                f"memory {k}": str(int(state.cells[i, k])) if filled >> (k - 1) & 1 else ""
                for k in range(1, self.memories + 1)
            },
            "display": str(value) if value != EMPTY else "",
        }

    def tables(self, device: torch.device) -> tuple[Rules, Display]:
        """What is looked up, on `device`."""
        if device not in self._tables:
            display = (tensor.to(device) for tensor in _display(self.end))
            self._tables[device] = self._rules().to(device), Display(*display)
        return self._tables[device]

    def _rules(self) -> Rules:
        """The rules, for every mode and key at once."""
        recall = STO + self.memories
        modes = (JOINED * self.digits) << self.memories
        grid = torch.meshgrid(*map(torch.arange, (2, modes, len(self.vocabulary))), indexing="ij")
        fits, mode, key = grid[0].flatten() == 0, grid[1].flatten(), grid[2].flatten()
        running, has_value = mode & ENDED == 0, mode & (ENTRY | ACCUMULATOR) > 0
        pending, to_join, filled = mode // PENDING % 4, mode // JOINED % self.digits, mode // (JOINED * self.digits)
        reads = torch.where((key >= recall) & (key < recall + self.memories), key - recall + 1, 0)
        writes = torch.where((key >= STO) & (key < recall), key - STO + 1, 0)
        digit = running & (key < CTX)
        recalls = running & (reads > 0) & (filled >> (reads - 1).clamp_min(0) & 1 > 0)
        joins = digit & (to_join > 0)
        types = (digit | recalls) & fits
        operates = running & (key >= MUL) & (key <= SUB) & has_value
        stores = running & (writes > 0) & has_value
        ends = running & ((key == ANS) | (key == self.end))
        # An entry just begun may be joined by the digits that it lacks; one recalled by none.
        lacks = torch.where(recalls, 0, torch.where(joins, to_join - 1, self.digits - 1))
        cells = JOINED * self.digits
        after = torch.where(types, mode + (lacks - to_join) * JOINED | ENTRY, mode)
        after = torch.where(operates, filled * cells + ACCUMULATOR + (key - CTX) * PENDING, after)
        kept = (filled | 1 << (writes - 1).clamp_min(0)) * cells
        after = torch.where(stores, kept + ACCUMULATOR, after)
        after = torch.where(ends, mode | ENDED | torch.where(key == ANS, ANSWERED, 0), after)
        return Rules(
            digit=torch.where(digit, key, 0),
            reads=torch.where(recalls, reads, 0),
            writes=torch.where(stores, writes, 0),
            shift=torch.where(joins, 10, 0),
            waits=(pending > 0).long(),
            sign=torch.where(pending == SUB - CTX, -1, 1),
            multiplies=pending == MUL - CTX,
            types=types,
            sets=operates | stores,
            stores=stores,
            mode=after,
            done=after & ENDED > 0,
            answers=ends & (key == ANS),
            invalid=running & ~(types | operates | stores | ends),
        )


def _display(blank: int) -> tuple[Tensor, Tensor, Tensor]:
    zeros = torch.arange(HALF)[:, None] // torch.tensor([1000, 100, 10, 1]) % 10
    blanks = zeros.masked_fill((zeros.cumsum(1) == 0) & torch.tensor([True, True, True, False]), blank)
    none = torch.full((1, 4), blank)
    upper = torch.cat([none, blanks[1:], none])
    high = torch.cat([torch.nn.functional.pad(upper, (1, 0), value=sign) for sign in (blank, SUB)])
    shifts = BITS * torch.arange(DIGITS + 1)
    return (high << shifts[:-4]).sum(1), (torch.cat([blanks, zeros, none]) << shifts[-4:]).sum(1), shifts
