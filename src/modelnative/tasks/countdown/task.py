"""Countdown: reach a target from given numbers, each used once, with a tool for the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from modelnative.errors import choose
from modelnative.tasks.contract.board import BoardField
from modelnative.tasks.contract.sampling import NumberedTask, StageTables
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import Problems, Split, State, Step, TaskSpec, replace, require, whole_number
from modelnative.tasks.countdown.problems import LEAST, MOST, NUMBER, OPERATION, VALUE, TargetSpace
from modelnative.tasks.countdown.solver import LIMIT, OPERATORS
from modelnative.tasks.countdown.tables import ANSWERED, DIGITS, ENDED, CountdownTables, make_tables
from modelnative.tasks.countdown.words import CountdownWords

SLIPS = 16  # number of keys without effect that ends an episode with more than one try
FEEDBACK = ("last", "board", "tried")


@dataclass
class CountdownProblems(Problems):
    """Adds the numbers, the target and one solution.

    Attributes:
        numbers: int64 [n, numbers of the largest stage], ascending, then 0.
        target: int64 [n].
        solution: int64 [n], the operations of one expression (see `TargetSpace`).
    """

    numbers: Tensor
    target: Tensor
    solution: Tensor


@dataclass
class CountdownState(State):
    """A batch of n episodes; L is the number of operations of the last stage.

    Attributes:
        over: int64 [n], 0, `ANSWERED` or `ENDED`.
        values: int64 [n], the contents of the slots, `VALUE` bits each; 0 for an empty slot.
        made, to_make: int64 [n], operations made, and operations to make until one number is left.
        last: int64 [n], the last result; 0 before the first and after BACK.
        before: int64 [n, L], the values before each operation made.
        tried: int64 [n, L + 1], one bit for each operation that was tried after 0, 1, … operations; columns beyond
            `made` are undefined.
        slips: int64 [n], keys without effect, if there is more than one try.
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


class Countdown(CountdownWords, NumberedTask[CountdownProblems, CountdownState]):
    """Reach the target from all numbers, each used exactly once (stages C3, C4, … have 3, 4, … numbers).

    The numbers are in the slots A, B, … in ascending order. Each operation is one key, such as B*D: it empties both
    slots and puts its result into the first of them. The larger operand comes first: A-C is the absolute difference,
    A/C the larger number divided by the smaller. An operation has no effect if a slot is empty or if the result is not
    an integer from 1 to 999. ANS ends the episode; it succeeds if one number is left and equals the target. The display
    shows the last result.

    The problems of a stage are all multisets of numbers from 1 to `largest`, each with all targets from 1 to `targets`
    that are not among the numbers and that 1 to `solutions` expressions reach. The problems are equally likely, so a
    target that can be reached in many ways is not more frequent. Numbers are sorted, so no problem is a permutation of
    another. If there are more multisets than `CHOICES`, a fixed sample of that size is used. The game is TinyZero's
    (Pan et al., 2025) with smaller numbers and without fractional or negative results.

    The task measures planning: by default in one try, with `tries` by search.

    Args:
        numbers: number of numbers of the last stage, 3 to 6.
        largest: largest number, 4 to 99.
        targets: largest target, 10 to 999.
        operators: some of `+-*/`; division is exact.
        solutions: largest number of solutions of a problem. Expressions are counted as trees: (a + b) + c and
            a + (b + c) are different, a + b and b + a are the same.
        tries: number of expressions that the horizon has room for. With more than one, the key BACK takes back the last
            operation and blocks it: it has no effect on these numbers again until an earlier operation is taken back.
            The sixteenth key without effect ends the episode. A key that blocks an operation because it has no result
            is not counted.
        feedback: `last` shows the last result. `board` also shows the difference between the target and the last
            result, and the contents of all slots. `tried`, with more than one try, also shows the blocked operations,
            which a policy must otherwise remember, and the number of keys without effect.

    Raises:
        UserError: an option is out of its range, or leaves a stage without problems (raised when they are needed).

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
        require(1 <= solutions <= 10**6, "solutions", solutions, "1 to 1,000,000")
        require(1 <= tries <= 1000, "tries", tries, "1 to 1000")
        choose("feedback", feedback, FEEDBACK)
        require(tries > 1 or feedback != "tried", "tries", tries, "2 to 1000 with feedback=tried")
        self.most, self.operators = numbers, "".join(o for o in OPERATORS if o in operators)
        self.space = TargetSpace(numbers, largest, targets, self.operators, solutions)
        self.tries, self.shown, self.slots = tries, feedback, "ABCDEF"[:numbers]
        pairs = combinations(range(numbers), 2)
        self.operations = [(a, OPERATORS.index(o), b) for a, b in pairs for o in self.operators]
        keys = [self.slots[a] + OPERATORS[o] + self.slots[b] for a, o, b in self.operations]
        vocabulary = (*"0123456789-", *keys, *(["BACK"] if tries > 1 else []), "CTX", "ANS", "EOS")
        self.minus, self.undo = 10, len(vocabulary) - 4  # `undo` exists with more than one try
        self.ctx, self.ans, self.eos = range(len(vocabulary) - 3, len(vocabulary))
        self.tables = PerDevice(
            lambda device: make_tables(
                len(vocabulary), self.operations, self.minus + 1, self.minus, largest, targets
            ).to(device)
        )
        target_width, width = len(str(targets)), len(str(largest))
        places = ["target"] * target_width + ["CTX"] + [slot for slot in self.slots for _ in range(width)]
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
        self.drawn = StageTables(self.spec.stages, self.numbers)

    def options(self) -> dict[str, Any]:
        space = self.space
        options = {"numbers": self.most, "largest": space.largest, "targets": space.targets}
        limits = {"operators": self.operators, "solutions": space.solutions, "tries": self.tries}
        return {**options, **limits, "feedback": self.shown}

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> CountdownProblems:
        return self.problems(stage, self.drawn.draw(stage, generator, split))

    def numbers(self, stage: int, split: Split) -> Tensor:
        return self.space.part(stage, split)

    def problems(self, stage: Tensor, numbers: Tensor) -> CountdownProblems:
        key, solution = (column.contiguous() for column in numbers.unbind(1))
        tables = self.tables(key.device)
        target = key & (1 << VALUE) - 1
        shifts = VALUE + NUMBER * torch.arange(self.most, device=key.device)
        given = key[:, None] >> shifts & (1 << NUMBER) - 1
        digits = tables.numbers.index_select(0, given.flatten()).unflatten(0, given.shape).flatten(1)
        mark = torch.full_like(key, self.ctx)[:, None]
        context = torch.cat([tables.targets.index_select(0, target), mark, digits], 1)
        return CountdownProblems(stage, context, key, given, target, solution)

    def parse(self, stage: int, text: str) -> CountdownProblems:
        count, words = stage + LEAST, text.replace("=", " ").replace(",", " ").split()
        values = [whole_number(word, LIMIT) for word in words]
        numbers, target = sorted(values[:-1]), values[-1] if values else 0
        right = len(values) == count + 1 and 0 < numbers[0] <= numbers[-1] <= self.space.largest
        allowed = f"{count} numbers from 1 to {self.space.largest} and a target for stage {self.spec.stages[stage]}"
        require(right, "problem", text, f"{allowed}, such as {' '.join('1234567'[:count]) + ' = 10'!r}")
        found = self.space.find(stage, numbers, target)
        allowed = (
            f"a target up to {self.space.targets}, not among the numbers, that 1 to {self.space.solutions} expressions "
            "reach, with numbers that the task contains"
        )
        require(len(found) > 0, "problem", text, allowed)
        return self.problems(torch.tensor([stage]), found)

    def render(self, problems: CountdownProblems, i: int) -> str:
        numbers = " ".join(str(number) for number in problems.numbers[i].tolist() if number)
        return f"make {int(problems.target[i])} from {numbers}, each used once, with {' '.join(self.operators)}"

    def oracle(self, problems: CountdownProblems) -> Tensor:
        """The shortest program: one operation less than there are numbers, and ANS, like all that succeed."""
        t = torch.arange(self.spec.horizon, device=problems.stage.device)
        length = problems.stage[:, None] + LEAST - 1
        operation = problems.solution[:, None] >> OPERATION * t.clamp_max(MOST - 1) & (1 << OPERATION) - 1
        tokens = self.tables(t.device).programs.index_select(0, operation.flatten()).view(operation.shape)
        return torch.where(t < length, tokens, torch.where(t == length, self.ans, self.eos))

    # Episodes

    def begin(self, problems: CountdownProblems) -> CountdownState:
        zero = torch.zeros_like(problems.stage)
        levels = zero[:, None].repeat(1, self.most)
        return CountdownState(
            done=zero > 0,
            over=zero,
            values=(problems.numbers << VALUE * torch.arange(self.most, device=zero.device)).sum(1),
            made=zero,
            to_make=problems.stage + LEAST - 1,
            last=zero,
            before=levels[:, 1:],
            tried=levels,
            slips=zero,
            target=problems.target,
        )

    def step(self, state: CountdownState, action: Tensor) -> Step[CountdownState]:
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
            after = self._with_search(state, after, bit, computes, invalid & (action == self.undo) & (state.made > 0))
            invalid = torch.zeros_like(invalid)  # keys without effect change the state: they are counted as slips
        success = running & (over == ANSWERED) & (state.to_make == 0) & (_first(state) == state.target)
        return Step(after, self.feedback(after), success.float(), after.done, success, invalid)

    def _with_search(
        self, state: CountdownState, after: CountdownState, bit: Tensor, computes: Tensor, undoes: Tensor
    ) -> CountdownState:
        """Complete the state after a key if there is more than one try.

        Args:
            state, after: the states before and after the key, without the effects of BACK and without `tried`.
            bit: int64 [n], the bit of the operation of the key; 0 for other keys.
            computes, undoes: bool [n], whether the key makes an operation, or takes one back.
        """
        place = torch.arange(self.most, device=bit.device)
        here, ahead = place == state.made[:, None], place == after.made[:, None]
        tried = torch.where(here, state.tried | bit[:, None], state.tried)
        slip = (after.over == 0) & ~computes & ~undoes & (tried == state.tried).all(1)
        slips = state.slips + slip.long()
        over = torch.where(slip & (slips == SLIPS), ENDED, after.over)
        made = after.made - undoes.long()
        before = state.before.gather(1, made.clamp_max(self.most - 2)[:, None])[:, 0]
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

    def _result(self, a: Tensor, b: Tensor, operator: Tensor, tables: CountdownTables) -> Tensor:
        """Return the results of operations on values of which one may be 0: int64 [n], 0 where there is none."""
        high, low = torch.maximum(a, b), torch.minimum(a, b)
        result = high + torch.where(operator == OPERATORS.index("-"), -low, low)
        if "*" in self.operators:
            result = torch.where(operator == OPERATORS.index("*"), high * low, result)
        if "/" in self.operators:
            # A processor multiplies eight numbers in the time of one division.
            quotient = high * tables.reciprocal.index_select(0, low) >> 2 * VALUE
            quotient = torch.where(quotient * low == high, quotient, 0)
            result = torch.where(operator == OPERATORS.index("/"), quotient, result)
        return result

    def feedback(self, state: CountdownState) -> Tensor:
        tables = self.tables(state.last.device)
        shown = [tables.digits.index_select(0, state.last)]
        if self.shown != "last":
            missing = torch.where(state.last > 0, state.target - state.last + LIMIT, 2 * LIMIT + 1)
            shifts = VALUE * torch.arange(self.most, device=missing.device)
            values = state.values[:, None] >> shifts & (1 << VALUE) - 1
            board = tables.digits.index_select(0, values.flatten()).unflatten(0, values.shape).flatten(1)
            shown += [tables.missing.index_select(0, missing), board]
        if self.shown == "tried":
            operation = torch.arange(len(self.operations), device=state.last.device)
            tried = state.tried.gather(1, state.made[:, None]) >> operation & 1
            shown.append(torch.where(tried > 0, operation + self.minus + 1, self.eos))
            shown.append(tables.targets.index_select(0, state.slips)[:, -2:])
        return torch.cat(shown, 1)

    def records(self, problems: CountdownProblems, state: CountdownState) -> list[dict[str, Any]]:
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

    def registers(self, state: CountdownState, i: int) -> dict[str, str]:
        values, last, made = int(state.values[i]), int(state.last[i]), int(state.made[i])
        held = {slot: str(values >> VALUE * j & (1 << VALUE) - 1 or "") for j, slot in enumerate(self.slots)}
        held["display"] = str(last or "")
        if self.shown != "last":
            held["rest"] = str(int(state.target[i]) - last) if last else ""
        if self.shown == "tried":
            keys = self.spec.vocabulary[self.minus + 1 :]
            held["tried"] = " ".join(keys[j] for j in range(len(self.operations)) if state.tried[i, made] >> j & 1)
        return held

    def board(self, state: CountdownState, i: int) -> list[BoardField]:
        """The numbers that are left as one row of cells, the target, and the rest of the registers."""
        shown = self.registers(state, i)
        cells = tuple(f"{slot} = {shown.pop(slot) or '–'}" for slot in self.slots)
        target = BoardField("target", str(int(state.target[i])))
        return [BoardField("numbers", cells), target, *(BoardField(label, text) for label, text in shown.items())]


def _first(state: CountdownState) -> Tensor:
    """The content of the first slot, which holds the result of the last operation: int64 [n]."""
    return state.values & (1 << VALUE) - 1
