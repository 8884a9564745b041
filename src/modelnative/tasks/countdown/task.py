"""Countdown: reach the target from some numbers, each used once; a tool does the sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from modelnative.errors import UserError, choose
from modelnative.tasks.contract.task import Problems, Split, State, Step, Task, TaskSpec, replace, require
from modelnative.tasks.countdown.problems import LEAST, MOST, NUMBER, OPERATION, SLOT, VALUE, TargetSpace
from modelnative.tasks.countdown.solver import LIMIT, OPERATORS

DIGITS = len(str(LIMIT))  # of a value
ANSWERED, ENDED = 1, 2  # how an episode is over; 0 as long as it runs
SLIPS = 16  # keys without effect that end a search
FEEDBACK = ("last", "board", "tried")


@dataclass
class CountdownProblems(Problems):
    """Adds the numbers, the target, and one solution.

    Attributes:
        numbers: int64 [n, numbers of the largest stage], ascending, then 0.
        target: int64 [n].
        solution: int64 [n], the operations of one expression, see `TargetSpace`.
    """

    numbers: Tensor
    target: Tensor
    solution: Tensor


@dataclass
class Sheet(State):
    """An episode under way. L is the operations that the largest stage needs.

    Attributes:
        over: int64 [n], 0, `ANSWERED` or `ENDED`.
        values: int64 [n], what the slots hold, `VALUE` bits each; 0 is empty.
        made, to_make: int64 [n], operations done, and still to be done until one number is left.
        last: int64 [n], the last result, 0 before there is one and once it was taken back.
        before: int64 [n, L], the values before each operation that stands.
        tried: int64 [n, L + 1], the operations begun with after 0, 1, … of those that stand, a bit each; of what lies
            ahead it means nothing.
        slips: int64 [n], keys without effect, with more than one try.
        target: int64 [n], the problem's.
    """

    over: Tensor
    values: Tensor
    made: Tensor
    to_make: Tensor
    last: Tensor
    before: Tensor
    tried: Tensor
    slips: Tensor
    target: Tensor


@dataclass
class Tables:
    """What is looked up instead of computed.

    Attributes:
        first, second: int64 [V], where in `Sheet.values` the operands of a token stand.
        operator: int64 [V], its place in `OPERATORS`.
        operation: int64 [V], its place among the operations; −1 for a token that is none.
        over: int64 [V], of an episode after the token: 0, `ANSWERED` or `ENDED`.
        reciprocal: int64 [LIMIT + 1], 2²⁰ / b rounded up: (a · reciprocal) >> 20 is a // b for all values.
        programs: int64 [2 ** OPERATION], the token of each operation of a solution.
        digits: int64 [LIMIT + 1, DIGITS], of a value; blank for 0.
        missing: int64 [2 · LIMIT + 2, 1 + DIGITS], sign, blank if positive, and digits of what is missing, from −LIMIT
            on; the last row is blank.
        targets, numbers: int64 [values, digits], the digits of a target and of a number; blank for the number 0.
    """

    first: Tensor
    second: Tensor
    operator: Tensor
    operation: Tensor
    over: Tensor
    reciprocal: Tensor
    programs: Tensor
    digits: Tensor
    missing: Tensor
    targets: Tensor
    numbers: Tensor


class Countdown(Task[CountdownProblems, Sheet]):
    """Make the target of all the numbers, each used exactly once (stages C3, C4, … have 3, 4, … of them).

    The numbers stand in the slots A, B, … in ascending order. Every operation is one key, such as B*D: it empties both
    slots, and its result comes back as a new number in the first of them. The larger operand comes first, so that A-C
    is the distance of the two, and A/C the larger divided by the smaller. An operation whose result is not a whole
    number from 1 to 999 has no effect, nor has one of a slot that is empty. ANS ends the episode. It succeeds if one
    number is left and this is the target. The display shows the last result.

    The problems of a stage are all choices of numbers from 1 to `largest`, each with all targets from 1 to `targets`
    that are none of these numbers and that at least one expression reaches, and at most `solutions`. They are
    equally likely, so that a target is no more frequent for being reached in many ways; and as numbers are sorted,
    no problem is another one rearranged. Where there are more choices than `CHOICES`, so many stand for all of them.
    The game is TinyZero's (Pan et al., 2025), where numbers are larger and results may be broken or negative.

    It is planning that is measured: as it stands to know the way at once, with `tries` to search for it.

    Args:
        numbers: of the last stage, 3 to 6.
        largest: number, 4 to 99.
        targets: the largest target, 10 to 999.
        operators: some of `+-*/`; division is exact.
        solutions: the most that a problem may have. Expressions are counted as trees: (a + b) + c and a + (b + c)
            are two, b + a is the same as a + b.
        tries: with more than 1 there is a key BACK, which takes back the last operation and strikes it out: it has no
            effect on this sheet again, until an operation before it is taken back, too. The horizon has room for so
            many expressions; but the sixteenth key without effect ends the episode. One that strikes out an operation
            for having no result is none of them.
        feedback: `last` is the display as above. `board` also shows what is missing from the last result to the target,
            and what all slots hold. `tried`, with more than one try, also shows what is struck out on this sheet, for
            which one else needs memory, and how many keys were without effect.

    Raises:
        UserError: a option is out of its range, or leaves a stage without problems (when these are first asked for).

    Example:
        >>> task = Countdown()
        >>> problem = task.parse(1, "1 3 4 6 = 29")
        >>> task.render(problem, 0)
        'make 29 from 1 3 4 6, each used once, with + - * /'
        >>> " ".join(task.spec.vocabulary[t] for t in task.oracle(problem)[0])
        'C+D B*C A-B ANS'
    """

    def __init__(
        self,
        numbers: int = 4,
        largest: int = 9,
        targets: int = 99,
        operators: str = OPERATORS,
        solutions: int = 20,
        tries: int = 1,
        feedback: Literal["last", "board", "tried"] = "last",
    ) -> None:
        require(LEAST <= numbers <= MOST, "numbers", numbers, f"{LEAST} to {MOST}")
        require(4 <= largest <= 99, "largest", largest, "4 to 99")
        require(10 <= targets <= LIMIT, "targets", targets, f"10 to {LIMIT}")
        allowed = operators != "" and all(operators.count(o) == (o in operators) for o in {*operators, *OPERATORS})
        require(allowed and set(operators) <= set(OPERATORS), "operators", operators, f"some of {OPERATORS}, each once")
        require(solutions >= 1, "solutions", solutions, "at least 1")
        require(1 <= tries <= 1000, "tries", tries, "1 to 1000")
        choose("feedback", feedback, FEEDBACK)
        require(tries > 1 or feedback != "tried", "tries", tries, "2 to 1000 with feedback=tried")
        self.numbers, self.operators = numbers, "".join(o for o in OPERATORS if o in operators)
        self.space = TargetSpace(numbers, largest, targets, self.operators, solutions)
        self.tries, self.shown, self.slots = tries, feedback, "ABCDEF"[:numbers]
        pairs = combinations(range(numbers), 2)
        self.operations = [(a, OPERATORS.index(o), b) for a, b in pairs for o in self.operators]
        keys = [self.slots[a] + OPERATORS[o] + self.slots[b] for a, o, b in self.operations]
        vocabulary = (*"0123456789-", *keys, *(["BACK"] if tries > 1 else []), "CTX", "ANS", "EOS")
        self.minus, self.undo = 10, len(vocabulary) - 4  # undo: with more than one try
        self.ctx, self.ans, self.eos = range(len(vocabulary) - 3, len(vocabulary))
        self._tables: dict[torch.device, Tables] = {}
        wide, width = len(str(targets)), len(str(largest))
        places = ["target"] * wide + ["CTX"] + [slot for slot in self.slots for _ in range(width)]
        widths = (DIGITS, 1 + DIGITS + DIGITS * numbers, len(keys) + 2)
        self.spec = TaskSpec(
            name="countdown",
            vocabulary=vocabulary,
            stages=tuple(f"C{k}" for k in range(LEAST, numbers + 1)),
            context_length=len(places),
            feedback_width=sum(widths[: 1 + FEEDBACK.index(feedback)]),
            horizon=tries * numbers,
            start=self.ctx,
            end=self.eos,
            positions=tuple(places),
        )

    def options(self) -> dict[str, Any]:
        space = self.space
        options = {"numbers": self.numbers, "largest": space.largest, "targets": space.targets}
        rules = {"operators": self.operators, "solutions": space.solutions, "tries": self.tries}
        return {**options, **rules, "feedback": self.shown}

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> CountdownProblems:
        return self._problems(stage, *self.space.sample(stage, generator, split))

    def _problems(self, stage: Tensor, key: Tensor, solution: Tensor) -> CountdownProblems:
        tables = self.tables(key.device)
        target = key & (1 << VALUE) - 1
        shifts = VALUE + NUMBER * torch.arange(self.numbers, device=key.device)
        numbers = key[:, None] >> shifts & (1 << NUMBER) - 1
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
        """Shortest, as all successes need the same: an operation for each number but one, and ANS."""
        t = torch.arange(self.spec.horizon, device=problems.stage.device)
        length = problems.stage[:, None] + LEAST - 1
        operation = problems.solution[:, None] >> OPERATION * t.clamp_max(MOST - 1) & (1 << OPERATION) - 1
        tokens = self.tables(t.device).programs.index_select(0, operation.flatten()).view(operation.shape)
        return torch.where(t < length, tokens, torch.where(t == length, self.ans, self.eos))

    # Episodes

    def begin(self, problems: CountdownProblems) -> Sheet:
        zero = torch.zeros_like(problems.stage)
        levels = zero[:, None].repeat(1, self.numbers)
        return Sheet(
            done=zero > 0,
            over=zero,
            values=(problems.numbers << VALUE * torch.arange(self.numbers, device=zero.device)).sum(1),
            made=zero,
            to_make=problems.stage + LEAST - 1,
            last=zero,
            before=levels[:, 1:],
            tried=levels,
            slips=zero,
            target=problems.target,
        )

    def step(self, state: Sheet, action: Tensor) -> Step[Sheet]:
        tables, running = self.tables(action.device), state.over == 0
        first, second, operation = (t.index_select(0, action) for t in (tables.first, tables.second, tables.operation))
        a, b = (state.values >> shift & (1 << VALUE) - 1 for shift in (first, second))
        result = self._result(a, b, tables.operator.index_select(0, action), tables)
        computes = running & (operation >= 0) & (a > 0) & (b > 0) & (result > 0) & (result <= LIMIT)
        bit = torch.where(running & (operation >= 0), torch.ones_like(action) << operation.clamp_min(0), 0)
        if self.tries > 1:
            computes = computes & (state.tried.gather(1, state.made[:, None])[:, 0] & bit == 0)
        one = computes.long()
        over = torch.where(running, tables.over.index_select(0, action), state.over)
        after = replace(
            state,
            done=over > 0,
            over=over,
            values=torch.where(computes, state.values - (b << second) + (result - a << first), state.values),
            made=state.made + one,
            to_make=state.to_make - one,
            last=torch.where(computes, result, state.last),
        )
        invalid = running & ~computes & (over == 0)
        if self.tries > 1:
            after = self._searched(state, after, bit, computes, invalid & (action == self.undo) & (state.made > 0))
            invalid = torch.zeros_like(invalid)  # a key without effect is a slip, which is counted
        success = running & (over == ANSWERED) & (state.to_make == 0) & (_first(state) == state.target)
        return Step(after, self.feedback(after), success.float(), after.done, success, invalid)

    def _searched(self, state: Sheet, after: Sheet, bit: Tensor, computes: Tensor, undoes: Tensor) -> Sheet:
        """What more there is after a key with more than one try.

        Args:
            state, after: before the key, and after it as far as it is known.
            bit: int64 [n], of the operation that the key begins; 0 for another key.
            computes, undoes: bool [n], the key carries an operation out, or takes one back.
        """
        place = torch.arange(self.numbers, device=bit.device)
        here, ahead = place == state.made[:, None], place == after.made[:, None]
        tried = torch.where(here, state.tried | bit[:, None], state.tried)
        slip = (after.over == 0) & ~computes & ~undoes & (tried == state.tried).all(1)
        slips = state.slips + slip.long()
        over = torch.where(slip & (slips == SLIPS), ENDED, after.over)
        made = after.made - undoes.long()
        before = state.before.gather(1, made.clamp_max(self.numbers - 2)[:, None])[:, 0]
        return replace(
            after,
            done=over > 0,
            over=over,
            values=torch.where(undoes, before, after.values),
            made=made,
            to_make=after.to_make + undoes.long(),
            last=torch.where(undoes, 0, after.last),
            before=torch.where((here & computes[:, None])[:, :-1], state.values[:, None], state.before),
            tried=torch.where(ahead & computes[:, None], 0, tried),
            slips=slips,
        )

    def _result(self, a: Tensor, b: Tensor, operator: Tensor, tables: Tables) -> Tensor:
        """Of operations on values of which one may be 0: int64 [n], 0 where there is none."""
        high, low = torch.maximum(a, b), torch.minimum(a, b)
        result = high + torch.where(operator == OPERATORS.index("-"), -low, low)
        if "*" in self.operators:
            result = torch.where(operator == OPERATORS.index("*"), high * low, result)
        if "/" in self.operators:
            # The processor multiplies eight numbers while it divides one.
            quotient = high * tables.reciprocal.index_select(0, low) >> 2 * VALUE
            quotient = torch.where(quotient * low == high, quotient, 0)
            result = torch.where(operator == OPERATORS.index("/"), quotient, result)
        return result

    def feedback(self, state: Sheet) -> Tensor:
        tables = self.tables(state.last.device)
        shown = [tables.digits.index_select(0, state.last)]
        if self.shown != "last":
            missing = torch.where(state.last > 0, state.target - state.last + LIMIT, 2 * LIMIT + 1)
            shifts = VALUE * torch.arange(self.numbers, device=missing.device)
            values = state.values[:, None] >> shifts & (1 << VALUE) - 1
            board = tables.digits.index_select(0, values.flatten()).view(len(missing), -1)
            shown += [tables.missing.index_select(0, missing), board]
        if self.shown == "tried":
            operation = torch.arange(len(self.operations), device=state.last.device)
            tried = state.tried.gather(1, state.made[:, None]) >> operation & 1
            shown.append(torch.where(tried > 0, operation + self.minus + 1, self.eos))
            shown.append(tables.targets.index_select(0, state.slips)[:, -2:])
        return torch.cat(shown, 1)

    def records(self, problems: CountdownProblems, state: Sheet) -> list[dict[str, Any]]:
        answer = torch.where((state.over == ANSWERED) & (state.to_make == 0), _first(state), 0)
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
        values, last, made = int(state.values[i]), int(state.last[i]), int(state.made[i])
        held = {slot: str(values >> VALUE * j & (1 << VALUE) - 1 or "") for j, slot in enumerate(self.slots)}
        held["display"] = str(last or "")
        if self.shown != "last":
            held["rest"] = str(int(state.target[i]) - last) if last else ""
        if self.shown == "tried":
            keys = self.spec.vocabulary[self.minus + 1 :]
            held["tried"] = " ".join(keys[j] for j in range(len(self.operations)) if state.tried[i, made] >> j & 1)
        return held

    def tables(self, device: torch.device) -> Tables:
        """What is looked up, on `device`."""
        if device not in self._tables:
            self._tables[device] = self._make_tables(device)
        return self._tables[device]

    def _make_tables(self, device: torch.device) -> Tables:
        size, begin = len(self.spec.vocabulary), self.minus + 1
        first, second, operator, over = torch.zeros(4, size, dtype=torch.int64)
        operation, programs = torch.full((size,), -1), torch.full((1 << OPERATION,), self.eos)
        for token, (a, o, b) in enumerate(self.operations, begin):
            first[token], second[token], operator[token], operation[token] = VALUE * a, VALUE * b, o, token - begin
            programs[a + (o << SLOT) + (b << SLOT + 2)] = token
        over[self.ans], over[self.eos] = ANSWERED, ENDED
        digits, numbers = _digits(LIMIT + 1, DIGITS), _digits(self.space.largest + 1, len(str(self.space.largest)))
        sizes = torch.cat([digits[1:].flip(0), digits])  # of −LIMIT to LIMIT
        sign = torch.where(torch.arange(len(sizes)) < LIMIT, self.minus, self.eos)[:, None]
        missing = torch.cat([torch.cat([sign, sizes], 1), torch.full((1, 1 + DIGITS), self.eos)])
        digits[0] = numbers[0] = self.eos
        tensors = (
            *(first, second, operator, operation, over),
            -(-(1 << 2 * VALUE) // torch.arange(LIMIT + 1).clamp_min(1)),
            *(programs, digits, missing, _digits(LIMIT + 1, len(str(self.space.targets))), numbers),
        )
        return Tables(*(tensor.to(device) for tensor in tensors))


def _first(state: Sheet) -> Tensor:
    """What the first slot holds, which has the result of the last of all operations: int64 [n]."""
    return state.values & (1 << VALUE) - 1


def _digits(numbers: int, places: int) -> Tensor:
    """The digits of 0, 1, 2, …, from the left: int64 [numbers, places]."""
    return torch.arange(numbers)[:, None] // 10 ** torch.arange(places - 1, -1, -1) % 10
