"""Search for the shortest program of tool calls for each of many problems.

Programs are tried in order of their length, each on the batch of all problems that are still unsolved. So the time of
the search depends on the number of programs up to the needed length, and not on the number of problems.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.tools.call_table import ERROR, NONE, CallTable
from modelnative.tasks.tools.tool import Value

BUDGET = 200_000  # programs and prefixes of programs that are tried before the search gives up


@dataclass(frozen=True)
class ProgramCall:
    """One call of a program: the index of a tool, and the source of each argument.

    A source is the index of a slot (inputs, then results), or −1 − i for constant i.
    """

    tool: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class ProgramSpace:
    """The set of programs that are searched.

    Attributes:
        calls: the table of calls, with the tools.
        constants: the id of each constant's value.
        inputs: number of inputs.
        most: largest number of calls of a program.
    """

    calls: CallTable
    constants: Mapping[tuple[type, Value], int]
    inputs: int
    most: int

    def words(self, program: Sequence[ProgramCall], answer: int, slots: Sequence[str]) -> list[str]:
        """Return the tokens of a program by name; `slots` are the names of inputs and results."""
        names = [*slots, *(repr(constant) for _, constant in list(self.constants)[::-1])]  # constant i has index −1 − i
        called = [[self.calls.tools[call.tool].name, *(names[source] for source in call.sources)] for call in program]
        return [*itertools.chain(*called), "ANS", slots[answer]]


class ProgramSearch:
    """Finds the program with the fewest tokens for each problem, the first one in the order of the search.

    A call has a token for the tool and one for each argument. Programs are skipped if a shorter one has the same result
    (with a call that fails, whose result exists already, or whose result is not used), and if they differ from another
    program by the order of independent calls alone.

    Args:
        space: the programs.
        slots: int64 [N, inputs], ids of the inputs of N problems, NONE where a problem does not have one.
        target: int64 [N], `alike` of the right answer.

    Attributes:
        found: for each problem its calls and the slot of the answer; None if no program was found.
        exhausted: whether all programs were tried; otherwise the budget was used up.
    """

    def __init__(self, space: ProgramSpace, slots: Tensor, target: Tensor) -> None:
        self.space, self.slots, self.target = space, slots, target
        self.found: list[tuple[tuple[ProgramCall, ...], int] | None] = [None] * len(slots)
        self.open = torch.ones(len(slots), dtype=torch.bool)
        self.exhausted = True
        self._tried = 0
        self._values = list(space.constants.values())
        self._places = {constant: place for place, constant in enumerate(space.constants)}
        self._widest = max(len(tool.parameters) for tool in space.calls.tools)
        for slot in range(space.inputs):
            self._solve(torch.arange(len(slots)), slots[:, slot], (), slot)
        for length in range(1, space.most * (1 + self._widest) + 1):
            rows = self.open.nonzero()[:, 0]
            if len(rows) and self._tried < BUDGET:
                self._extend((), rows, slots[rows], length)
        self.exhausted = self._tried < BUDGET

    def _extend(self, program: tuple[ProgramCall, ...], rows: Tensor, slots: Tensor, length: int) -> None:
        """Try all programs that extend `program` by exactly `length` tokens on some problems.

        `slots` is int64 [len(rows), inputs + calls so far].
        """
        space = self.space
        left = space.most - len(program)
        for call in self._next(program, length, left):
            rest = length - 1 - len(call.sources)
            self._tried += 1
            if self._tried > BUDGET:
                return
            still = self.open[rows]
            result, good = self._call(call, slots, still)
            good = good & (result[:, None] != slots).all(1) & (result > ERROR)
            keep = good.nonzero()[:, 0]
            if not len(keep):
                continue
            longer = (*program, call)
            if rest == 0:
                self._solve(rows[keep], result[keep], longer, space.inputs + len(program))
            else:
                self._extend(longer, rows[keep], torch.cat([slots[keep], result[keep, None]], 1), rest)

    def _next(self, program: tuple[ProgramCall, ...], length: int, left: int) -> Iterator[ProgramCall]:
        """Yield the calls that may follow."""
        space = self.space
        first = space.inputs
        used = {source for call in program for source in call.sources}
        unused = {first + i for i in range(len(program))} - used
        for index, tool in enumerate(space.calls.tools):
            arity = len(tool.parameters)
            rest = length - 1 - arity
            if rest < 0 or (rest > 0 and left == 1) or rest > (left - 1) * (1 + self._widest):
                continue
            kinds = tool.parameters.values()
            places = [[*range(first + len(program)), *(-1 - self._constant(c) for c in kind.choices)] for kind in kinds]
            for sources in itertools.product(*places):
                call = ProgramCall(index, sources)
                waiting = len(unused - set(sources))  # earlier results that a later call must use
                # Each later call but the last one uses its arguments and adds a result that must be used.
                if waiting > (left - 1) * max(self._widest - 1, 0) or (rest == 0 and waiting):
                    continue
                # Independent calls are in ascending order.
                if program and first + len(program) - 1 not in sources:
                    last = program[-1]
                    if (index, sources) <= (last.tool, last.sources):
                        continue
                yield call

    def _constant(self, value: Value) -> int:
        return self._places[type(value), value]

    def _call(self, call: ProgramCall, slots: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Make a call in the rows of `wanted`; return the results, and whether the call could be made."""
        space, values = self.space, self.space.calls.values
        fits = values.columns(slots.device).fits
        kinds = list(space.calls.tools[call.tool].parameters.values())
        width = max(self._widest, 1)
        arguments = torch.full((len(slots), width), NONE)
        good = wanted
        for place, source in enumerate(call.sources):
            arguments[:, place] = slots[:, source] if source >= 0 else self._values[-1 - source]
            good = good & fits[arguments[:, place], values.kinds.index(kinds[place])]
        result = torch.full((len(slots),), NONE)
        chosen = good.nonzero()[:, 0]
        if len(chosen):
            result[chosen] = space.calls(torch.full((len(chosen),), call.tool), arguments[chosen])
        return result, good

    def _solve(self, rows: Tensor, answer: Tensor, program: tuple[ProgramCall, ...], slot: int) -> None:
        """Record the problems whose answer is right."""
        alike = self.space.calls.values.columns(answer.device).alike
        right = (answer > ERROR) & (alike[answer] == self.target[rows]) & self.open[rows]
        self.open[rows[right]] = False
        for row in rows[right].tolist():
            self.found[row] = (program, slot)
