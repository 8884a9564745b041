"""Countdown: reach the target from some numbers, each used once; a tool does the sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from modelnative.errors import UserError, choose
from modelnative.tasks.batch import Batch
from modelnative.tasks.reach import LIMIT, OPERATORS
from modelnative.tasks.targets import LEAST, MOST, NUMBER, SYMBOL, VALUE, TargetSpace
from modelnative.tasks.task import Problems, Split, State, Step, Task, TaskSpec, replace, require

NAMES = ("ADD", "SUB", "MUL", "DIV")  # of `OPERATORS`
DIGITS = len(str(LIMIT))  # of the display
TRIES = 2  # digits in which they are counted; after 99 comes 0


@dataclass
class CountdownProblems(Problems):
    """Adds the numbers, the target, and one solution.

    Attributes:
        numbers: int64 [n, numbers of the largest stage], ascending, then 0.
        target: int64 [n].
        solution: int64 [n], the operations of one expression, `SYMBOL` bits to a symbol: a slot, or 11 plus the place
            of an operator in `OPERATORS`.
    """

    numbers: Tensor
    target: Tensor
    solution: Tensor


@dataclass
class Sheet(State):
    """An episode under way; every other field is int64 [n].

    Attributes:
        mode: what is typed of an operation, or how the episode ended; see `Keys`.
        numbers, results: the values of the slots N1, N2, … and R1, R2, …, `NUMBER` and `VALUE` bits each.
        free: the slots that may be used, a bit each.
        typed: the value of the slot that was typed.
        made, to_make: operations done, and still to be done until one number is left.
        last: the last result, 0 without one.
        shown: a row of `Tables.display`.
        cleared: how often all was put back.
        target: the problem's.
    """

    mode: Tensor
    numbers: Tensor
    results: Tensor
    free: Tensor
    typed: Tensor
    made: Tensor
    to_make: Tensor
    last: Tensor
    shown: Tensor
    cleared: Tensor
    target: Tensor


@dataclass
class Keys(Batch):
    """What each key does. A row for each choice of (mode, key), the key counting fastest.

    The modes are: nothing typed, a slot (S modes), a slot and an operator (S times the operators), answered, ended.

    Attributes:
        mode: int64, after the key if it has an effect.
        slot, shift, mask: int64, the slot that is typed, and where its value stands.
        result: bool, that is among the results.
        types, computes: bool, it types a first slot, or a second one, after an operator.
        works: bool, it has an effect whatever the slots hold.
        running, answers, done: bool, the episode runs before it; it answers; the episode is over after it.
        sign: int64, of the right operand in a sum.
        multiplies, divides: bool.
        uses: int64, the bits of both operands.
    """

    mode: Tensor
    slot: Tensor
    shift: Tensor
    mask: Tensor
    result: Tensor
    types: Tensor
    computes: Tensor
    works: Tensor
    running: Tensor
    answers: Tensor
    done: Tensor
    sign: Tensor
    multiplies: Tensor
    divides: Tensor
    uses: Tensor


@dataclass
class Tables:
    """What is looked up instead of computed.

    Attributes:
        keys: what each key does.
        display: int64 [(slots + 1) · (LIMIT + 1), 4], a slot and three digits; the first row is blank.
        reciprocal: int64 [LIMIT + 1], 2²⁰ / b rounded up: (a · reciprocal) >> 20 is a // b for all values.
        symbols: int64 [2 ** SYMBOL], the token of each symbol of a solution.
        rest: int64 [2 · LIMIT + 2, 1 + DIGITS], of what is missing, from −LIMIT on: a sign, blank if positive,
            and three digits; the last row is blank.
        tries: int64 [10 ** TRIES, TRIES], the digits of 0, 1, 2, …
        targets, numbers: int64 [values, digits], the digits of a target and of a number; blank for the number 0.
        shifts: int64 [numbers], where in a key the numbers stand.
    """

    keys: Keys
    display: Tensor
    reciprocal: Tensor
    symbols: Tensor
    rest: Tensor
    tries: Tensor
    targets: Tensor
    numbers: Tensor
    shifts: Tensor


class Countdown(Task[CountdownProblems, Sheet]):
    """Make the target of all the numbers, each used exactly once (stages C3, C4, … have 3, 4, … of them).

    The numbers stand in the slots N1, N2, … in ascending order. `slot operator slot` is an operation: it empties both
    slots, and its result comes back as a new number in the next of the slots R1, R2, … A slot that is typed after
    another replaces it, an operator after another too. An operation whose result is not a whole number from 1 to 999
    has no effect, nor has a slot that is empty. ANS ends the episode. It succeeds if one number is left and this is the
    target. The display shows the slot that was last typed or filled, and what is in it.

    The problems of a stage are all choices of numbers from 1 to `largest`, each with all targets from 1 to `targets`
    that are none of these numbers and that at least one expression reaches, and at most `solutions`. They are
    equally likely, so that a target is no more frequent for being reached in many ways; and as numbers are sorted,
    no problem is another one rearranged. Where there are more choices than `CHOICES`, so many stand for all of them.
    The game is TinyZero's (Pan et al., 2025), where numbers are larger and results may be broken or negative.

    By exact search over all constant programs the best reaches 8.6% of C3 (N1 + N2 + N3) and 2.5% of C4, as it stands.
    It is planning that is measured. Little has to be remembered: the display tells which operation was the last.

    Args:
        numbers: of the last stage, 3 to 6.
        largest: number, 4 to 99.
        targets: the largest target, 10 to 999.
        operators: some of `+-*/`; division is exact.
        solutions: the most that a problem may have. Expressions are counted as trees: (a + b) + c and a + (b + c)
            are two, b + a is the same as a + b.
        tries: with more than 1 there is a key CLR, which puts all back as it was in the beginning, and the horizon has
            room for so many expressions.
        feedback: `slot` is the display as above; `rest` also shows what is missing from the last result to the target,
            with its sign, and with more than one try how often CLR was pressed.

    Raises:
        UserError: a dial is out of its range, or leaves a stage without problems (when these are first asked for).

    Example:
        >>> task = Countdown()
        >>> problem = task.parse(1, "1 3 4 6 = 29")
        >>> task.render(problem, 0)
        'make 29 from 1 3 4 6, each used once, with + - * /'
        >>> " ".join(task.spec.vocabulary[t] for t in task.oracle(problem)[0])
        'N3 ADD N4 N2 MUL R1 R2 SUB N1 ANS'
    """

    def __init__(
        self,
        numbers: int = 4,
        largest: int = 9,
        targets: int = 99,
        operators: str = OPERATORS,
        solutions: int = 20,
        tries: int = 1,
        feedback: Literal["slot", "rest"] = "slot",
    ) -> None:
        require(LEAST <= numbers <= MOST, "numbers", numbers, f"{LEAST} to {MOST}")
        require(4 <= largest <= 99, "largest", largest, "4 to 99")
        require(10 <= targets <= LIMIT, "targets", targets, f"10 to {LIMIT}")
        allowed = operators != "" and all(operators.count(o) == (o in operators) for o in {*operators, *OPERATORS})
        require(allowed and set(operators) <= set(OPERATORS), "operators", operators, f"some of {OPERATORS}, each once")
        require(solutions >= 1, "solutions", solutions, "at least 1")
        require(1 <= tries <= 100, "tries", tries, "1 to 100")
        choose("feedback", feedback, ("slot", "rest"))
        self.numbers, self.operators = numbers, "".join(o for o in OPERATORS if o in operators)
        self.space = TargetSpace(numbers, largest, targets, self.operators, solutions)
        self.slots, self.tries, self.shown = 2 * numbers - 1, tries, feedback
        self._tables: dict[torch.device, Tables] = {}
        slots = [f"N{i + 1}" for i in range(numbers)] + [f"R{i + 1}" for i in range(numbers - 1)]
        operations = [NAMES[OPERATORS.index(o)] for o in self.operators]
        vocabulary = (*"0123456789", *slots, *operations, *(["CLR"] if tries > 1 else []), "CTX", "ANS", "EOS")
        self.ctx, self.ans, self.eos = range(len(vocabulary) - 3, len(vocabulary))
        self.clr = self.ctx - 1  # with more than one try
        self.answered = 1 + self.slots * (1 + len(operations))
        wide, width = len(str(targets)), len(str(largest))
        places = ["target"] * wide + ["CTX"] + [name for name in slots[:numbers] for _ in range(width)]
        self.spec = TaskSpec(
            name="countdown",
            vocabulary=vocabulary,
            stages=tuple(f"C{k}" for k in range(LEAST, numbers + 1)),
            context_length=len(places),
            feedback_width=1 + DIGITS if feedback == "slot" else 2 * (1 + DIGITS) + TRIES * (tries > 1),
            horizon=tries * (3 * (numbers - 1) + 1),
            start=self.ctx,
            end=self.eos,
            positions=tuple(places),
        )

    def options(self) -> dict[str, Any]:
        space = self.space
        dials = {"numbers": self.numbers, "largest": space.largest, "targets": space.targets}
        rules = {"operators": self.operators, "solutions": space.solutions, "tries": self.tries}
        return {**dials, **rules, "feedback": self.shown}

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> CountdownProblems:
        return self._problems(stage, *self.space.sample(stage, generator, split))

    def _problems(self, stage: Tensor, key: Tensor, solution: Tensor) -> CountdownProblems:
        tables = self.tables(key.device)
        target = key & (1 << VALUE) - 1
        numbers = (key >> VALUE)[:, None] >> tables.shifts & (1 << NUMBER) - 1
        digits = tables.numbers.index_select(0, numbers.flatten()).view(len(key), -1)
        mark = torch.full_like(key, self.ctx)[:, None]
        context = torch.cat([tables.targets.index_select(0, target), mark, digits], 1)
        return CountdownProblems(stage, context, key, numbers, target, solution)

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[CountdownProblems]:
        keys, solutions = self.space.part(stage, split)
        for key, solution in zip(keys.split(chunk), solutions.split(chunk), strict=True):
            if len(key):
                yield self._problems(torch.full_like(key, stage), key, solution)

    def count(self, stage: int, split: Split = "all") -> int:
        return len(self.space.part(stage, split)[0])

    def parse(self, stage: int, text: str) -> CountdownProblems:
        count, words = stage + LEAST, text.replace("=", " ").replace(",", " ").split()
        values = [int(word) if word.isascii() and word.isdigit() and len(word) <= DIGITS else 0 for word in words]
        numbers, target = sorted(values[:-1]), values[-1] if values else 0
        if len(values) != count + 1 or not 0 < numbers[0] <= numbers[-1] <= self.space.largest:
            raise UserError(
                f"problem: {text!r} is not allowed; expected {count} numbers from 1 to {self.space.largest} and a "
                f"target for stage {self.spec.stages[stage]}, such as {' '.join('1234567'[:count]) + ' = 10'!r}"
            )
        found = self.space.find(stage, numbers, target)
        if found is None:
            raise UserError(
                f"problem: {text!r} is not allowed; expected a target up to {self.space.targets}, none of the numbers, "
                f"that 1 to {self.space.solutions} expressions reach, of a choice of numbers that the task has"
            )
        return self._problems(torch.tensor([stage]), *found)

    def render(self, problems: CountdownProblems, i: int) -> str:
        numbers = " ".join(str(number) for number in problems.numbers[i].tolist() if number)
        return f"make {int(problems.target[i])} from {numbers}, each used once, with {' '.join(self.operators)}"

    def oracle(self, problems: CountdownProblems) -> Tensor:
        """Shortest, as all successes need the same keys: three for each number but one, and ANS."""
        t = torch.arange(self.spec.horizon, device=problems.stage.device)
        length = 3 * (problems.stage[:, None] + LEAST - 1)
        # The last place is never one of a solution, which for six numbers fills all bits before it.
        symbol = problems.solution[:, None] >> (SYMBOL * t).clamp_max(63 - SYMBOL) & (1 << SYMBOL) - 1
        tokens = self.tables(t.device).symbols.index_select(0, symbol.flatten()).view(symbol.shape)
        return torch.where(t < length, tokens, torch.where(t == length, self.ans, self.eos))

    # Episodes

    def begin(self, problems: CountdownProblems) -> Sheet:
        zero = torch.zeros_like(problems.stage)
        return Sheet(
            done=zero > 0,
            mode=zero,
            numbers=problems.key >> VALUE,
            results=zero,
            free=(8 << problems.stage) - 1,
            typed=zero,
            made=zero,
            to_make=problems.stage + LEAST - 1,
            last=zero,
            shown=zero,
            cleared=zero,
            target=problems.target,
        )

    def step(self, state: Sheet, action: Tensor) -> Step[Sheet]:
        tables = self.tables(action.device)
        keys, row = tables.keys, torch.add(action, state.mode, alpha=len(self.spec.vocabulary))
        slot = keys.slot.index_select(0, row)
        values = torch.where(keys.result.index_select(0, row), state.results, state.numbers)
        value = values >> keys.shift.index_select(0, row) & keys.mask.index_select(0, row)
        result = torch.addcmul(state.typed, keys.sign.index_select(0, row), value)
        if "*" in self.operators:
            result = torch.where(keys.multiplies.index_select(0, row), state.typed * value, result)
        if "/" in self.operators:
            # The processor multiplies eight numbers while it divides one.
            quotient = state.typed * tables.reciprocal.index_select(0, value) >> 2 * VALUE
            quotient = torch.where(quotient * value == state.typed, quotient, 0)
            result = torch.where(keys.divides.index_select(0, row), quotient, result)
        free = (state.free >> slot & 1) > 0
        computes = keys.computes.index_select(0, row) & free & (result > 0) & (result <= LIMIT)
        types = keys.types.index_select(0, row) & free
        works = keys.works.index_select(0, row) | computes | types
        one, result = computes.long(), torch.where(computes, result, 0)
        used = keys.uses.index_select(0, row) * one
        shown = torch.where(types, (slot + 1) * (LIMIT + 1) + value, state.shown)
        after = Sheet(
            done=keys.done.index_select(0, row),
            mode=torch.where(works, keys.mode.index_select(0, row), state.mode),
            numbers=state.numbers,
            results=state.results + (result << VALUE * state.made),
            free=state.free - used + (one << state.made + self.numbers),
            typed=torch.where(types, value, state.typed),
            made=state.made + one,
            to_make=state.to_make - one,
            last=torch.where(computes, result, state.last),
            shown=torch.where(computes, (state.made + self.numbers + 1) * (LIMIT + 1) + result, shown),
            cleared=state.cleared,
            target=state.target,
        )
        if self.tries > 1:
            clears = (action == self.clr) & (state.mode < self.answered) & (state.made + state.mode > 0)
            works = works | clears
            after = _cleared(after, clears)
        success = keys.answers.index_select(0, row) & (state.to_make == 0) & (state.last == state.target)
        invalid = keys.running.index_select(0, row) & ~works
        return Step(after, self.feedback(after), success.float(), after.done, success, invalid)

    def feedback(self, state: Sheet) -> Tensor:
        tables = self.tables(state.shown.device)
        shown = tables.display.index_select(0, state.shown)
        if self.shown == "slot":
            return shown
        missing = torch.where(state.made > 0, state.target - state.last, LIMIT + 1)
        shown = torch.cat([shown, tables.rest.index_select(0, missing + LIMIT)], 1)
        if self.tries > 1:
            shown = torch.cat([shown, tables.tries.index_select(0, state.cleared % 10**TRIES)], 1)
        return shown

    def records(self, problems: CountdownProblems, state: Sheet) -> list[dict[str, Any]]:
        answer = torch.where((state.mode == self.answered) & (state.to_make == 0), state.last, 0)
        columns = (problems.numbers, problems.target, answer, self.oracle(problems))
        return [
            {
                "problem": " ".join(str(number) for number in numbers if number) + f" = {target}",
                "numbers": [number for number in numbers if number],
                "operators": self.operators,
                "solution": [self.spec.vocabulary[token] for token in solution if token != self.eos],
                "answer": answer or None,
                "target": target,
            }
            for numbers, target, answer, solution in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def registers(self, state: Sheet, i: int) -> dict[str, str]:
        slots, operators = self.spec.vocabulary[10 : 10 + self.slots], len(self.operators)
        numbers, results, free, mode = (int(x[i]) for x in (state.numbers, state.results, state.free, state.mode))
        typed = ""
        if 0 < mode < self.answered:
            slot, operator = (mode - 1, 0) if mode <= self.slots else divmod(mode - 1 - self.slots, operators)
            typed = slots[slot] + (f" {self.spec.vocabulary[10 + self.slots + operator]}" if mode > self.slots else "")
        values = [numbers >> NUMBER * j & (1 << NUMBER) - 1 for j in range(self.numbers)]
        values += [results >> VALUE * j & (1 << VALUE) - 1 for j in range(self.numbers - 1)]
        held = {
            name: str(value) if free >> j & 1 else "" for j, (name, value) in enumerate(zip(slots, values, strict=True))
        }
        place, value = divmod(int(state.shown[i]), LIMIT + 1)
        held |= {"typed": typed, "display": f"{slots[place - 1]} = {value}" if place else ""}
        if self.shown == "rest":
            held["rest"] = f"{int(state.target[i] - state.last[i])}" if int(state.made[i]) else ""
            held |= {"cleared": str(int(state.cleared[i]))} if self.tries > 1 else {}
        return held

    def tables(self, device: torch.device) -> Tables:
        """What is looked up, on `device`."""
        if device not in self._tables:
            self._tables[device] = self._make_tables(device)
        return self._tables[device]

    def _make_tables(self, device: torch.device) -> Tables:
        wide, width = len(str(self.space.targets)), len(str(self.space.largest))
        numbers = _digits(self.space.largest + 1, width)
        numbers[0] = self.eos
        slots, values = (
            torch.arange(self.slots + 1)[:, None, None],
            _digits(LIMIT + 1, DIGITS).expand(self.slots + 1, -1, -1),
        )
        display = torch.cat([(slots + 9).expand(-1, LIMIT + 1, -1), values], 2).flatten(0, 1)
        display[0] = self.eos
        operations = [10 + self.slots + self.operators.find(o) for o in OPERATORS]
        symbols = [*range(10, 10 + self.slots), *[self.eos] * (2 * MOST - 1 - self.slots), *operations, self.eos]
        divisor = torch.arange(LIMIT + 1).clamp_min(1)
        minus = 10 + self.slots + self.operators.index("-") if "-" in self.operators else self.ctx
        missing = _digits(LIMIT + 1, DIGITS)
        sizes = torch.cat([missing[1:].flip(0), missing])  # of −LIMIT to LIMIT
        sign = torch.where(torch.arange(len(sizes)) < LIMIT, minus, self.eos)[:, None]
        rest = torch.cat([torch.cat([sign, sizes], 1), torch.full((1, 1 + DIGITS), self.eos)])
        tensors = (
            display,
            -(-(1 << 2 * VALUE) // divisor),
            torch.tensor(symbols),
            rest,
            _digits(10**TRIES, TRIES),
            _digits(LIMIT + 1, wide),
            numbers,
            NUMBER * torch.arange(self.numbers),
        )
        return Tables(self._keys().to(device), *(tensor.to(device) for tensor in tensors))

    def _keys(self) -> Keys:
        """The rules, for every mode and key at once."""
        count, slots, kinds = self.numbers, self.slots, len(self.operators)
        grid = torch.meshgrid(torch.arange(self.answered + 2), torch.arange(len(self.spec.vocabulary)), indexing="ij")
        mode, key = grid[0].flatten(), grid[1].flatten()
        running, slot, operation = mode < self.answered, key - 10, key - 10 - slots
        is_slot = (slot >= 0) & (slot < slots)
        is_operation = (operation >= 0) & (operation < kinds)
        chosen = running & (mode > slots)  # an operator stands there
        place = mode - 1 - slots
        first = torch.where(chosen, place // kinds, mode - 1)  # the slot that stands there; −1 without one
        operator = torch.where(chosen, place % kinds, -1)
        slot = torch.where(is_slot, slot, 0)
        types = running & is_slot & ~chosen & (slot != first)
        computes = chosen & is_slot & (slot != first)
        operates = running & is_operation & (first >= 0) & (operation != operator)
        answers, ends = running & (key == self.ans), running & (key == self.eos)
        after = torch.where(types, slot + 1, torch.where(computes, 0, mode))
        after = torch.where(operates, 1 + slots + first * kinds + operation, after)
        after = after.masked_fill(answers, self.answered).masked_fill(ends, self.answered + 1)
        result = slot >= count
        one = torch.ones_like(key)
        return Keys(
            mode=after,
            slot=slot,
            shift=torch.where(result, VALUE * (slot - count), NUMBER * slot),
            mask=torch.where(result, (1 << VALUE) - 1, (1 << NUMBER) - 1),
            result=result,
            types=types,
            computes=computes,
            works=operates | answers | ends,
            running=running,
            answers=answers,
            done=after >= self.answered,
            sign=torch.where(operator == self.operators.find("-"), -one, one),
            multiplies=chosen & (operator == self.operators.find("*")),
            divides=chosen & (operator == self.operators.find("/")),
            uses=torch.where(computes, (one << first.clamp_min(0)) + (one << slot), 0),
        )


def _cleared(state: Sheet, clears: Tensor) -> Sheet:
    """As it was in the beginning, where `clears`, bool [n]; elsewhere as it is."""
    to_make = state.made + state.to_make
    return replace(
        state,
        mode=torch.where(clears, 0, state.mode),
        results=torch.where(clears, 0, state.results),
        free=torch.where(clears, (2 << to_make) - 1, state.free),
        typed=torch.where(clears, 0, state.typed),
        made=torch.where(clears, 0, state.made),
        to_make=torch.where(clears, to_make, state.to_make),
        last=torch.where(clears, 0, state.last),
        shown=torch.where(clears, 0, state.shown),
        cleared=state.cleared + clears.long(),
    )


def _digits(numbers: int, places: int) -> Tensor:
    """The digits of 0, 1, 2, …, from the left: int64 [numbers, places]."""
    return torch.arange(numbers)[:, None] // 10 ** torch.arange(places - 1, -1, -1) % 10
