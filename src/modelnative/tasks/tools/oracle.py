"""The shortest program of tool calls for each of many problems, by search over programs; or as the user wrote it.

Programs are tried from the shortest to the longest, each on all problems that are still unsolved, as one batch. So the
search takes as long as there are programs that are no longer than needed, whatever the number of problems.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError, choose
from modelnative.tasks.tools.call_table import ERROR, NONE, Calls
from modelnative.tasks.tools.tool import Tool, Value

BUDGET = 200_000  # programs and beginnings of programs that are tried before the search gives up


@dataclass(frozen=True)
class Call:
    """One call of a program: a tool by its index, and where each argument is taken from.

    `sources` are slots: inputs from 0 on, then results, or −1 − i for constant i.
    """

    tool: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Machine:
    """What programs are made of.

    Attributes:
        tools: which can be called.
        calls: makes the calls.
        constants: the id of each constant's value.
        inputs: how many slots are inputs.
        most: calls of a program.
    """

    tools: Sequence[Tool[..., Any]]
    calls: Calls
    constants: Mapping[tuple[type, Value], int]
    inputs: int
    most: int

    def words(self, program: Sequence[Call], answer: int, slots: Sequence[str]) -> list[str]:
        """The tokens of a program, by name; `slots` are the names of inputs and results."""
        names = [*slots, *(repr(constant) for _, constant in list(self.constants)[::-1])]  # constant i at −1 − i
        called = [[self.tools[call.tool].name, *(names[source] for source in call.sources)] for call in program]
        return [*itertools.chain(*called), "ANS", slots[answer]]


class Search:
    """Finds the program with the fewest tokens for each problem; of several, the first in the order of the search.

    A call is a token for the tool and one for each argument. Left out are only programs that have a shorter one of the
    same result (a call that fails, whose result was there already or is never used), and all orders but one of calls
    that do not need each other.

    Args:
        machine: what programs are made of.
        slots: int64 [N, inputs], ids of the inputs of N problems, NONE where there is none.
        target: int64 [N], `alike` of the right answer.

    Attributes:
        found: for each problem its calls and the slot that is the answer; None where there is no program.
        exhausted: every program was tried on what is not found; else the budget was spent.
    """

    def __init__(self, machine: Machine, slots: Tensor, target: Tensor) -> None:
        self.machine, self.slots, self.target = machine, slots, target
        self.found: list[tuple[tuple[Call, ...], int] | None] = [None] * len(slots)
        self.open = torch.ones(len(slots), dtype=torch.bool)
        self.exhausted = True
        self._tried = 0
        self._values = list(machine.constants.values())
        self._places = {constant: place for place, constant in enumerate(machine.constants)}
        self._widest = max(len(tool.parameters) for tool in machine.tools)
        for slot in range(machine.inputs):
            self._solve(torch.arange(len(slots)), slots[:, slot], (), slot)
        for length in range(1, machine.most * (1 + self._widest) + 1):
            rows = self.open.nonzero()[:, 0]
            if len(rows) and self._tried < BUDGET:
                self._extend((), rows, slots[rows], length)
        self.exhausted = self._tried < BUDGET

    def _extend(self, program: tuple[Call, ...], rows: Tensor, slots: Tensor, length: int) -> None:
        """Try every program that goes on from `program` with exactly `length` more tokens, on some problems.

        `slots` is int64 [len(rows), inputs + calls so far].
        """
        machine = self.machine
        left = machine.most - len(program)
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
                self._solve(rows[keep], result[keep], longer, machine.inputs + len(program))
            else:
                self._extend(longer, rows[keep], torch.cat([slots[keep], result[keep, None]], 1), rest)

    def _next(self, program: tuple[Call, ...], length: int, left: int) -> Iterator[Call]:
        """The calls that may follow."""
        machine = self.machine
        first = machine.inputs
        used = {source for call in program for source in call.sources}
        unused = {first + i for i in range(len(program))} - used
        for index, tool in enumerate(machine.tools):
            arity = len(tool.parameters)
            rest = length - 1 - arity
            if rest < 0 or (rest > 0 and left == 1) or rest > (left - 1) * (1 + self._widest):
                continue
            kinds = tool.parameters.values()
            places = [[*range(first + len(program)), *(-1 - self._constant(c) for c in kind.choices)] for kind in kinds]
            for sources in itertools.product(*places):
                call = Call(index, sources)
                waiting = len(unused - set(sources))  # results that a later call must use, beside this one's
                # Each later call but the last uses up its arguments, and gives a result to be used.
                if waiting > (left - 1) * max(self._widest - 1, 0) or (rest == 0 and waiting):
                    continue
                # Calls that do not need each other stand in ascending order.
                if program and first + len(program) - 1 not in sources:
                    last = program[-1]
                    if (index, sources) <= (last.tool, last.sources):
                        continue
                yield call

    def _constant(self, value: Value) -> int:
        return self._places[type(value), value]

    def _call(self, call: Call, slots: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """The result of a call for each row, and whether it could be made; only rows that are `wanted`."""
        machine, values = self.machine, self.machine.calls.values
        fits = values.columns(slots.device).fits
        kinds = list(machine.tools[call.tool].parameters.values())
        width = max(self._widest, 1)
        arguments = torch.full((len(slots), width), NONE)
        good = wanted
        for place, source in enumerate(call.sources):
            arguments[:, place] = slots[:, source] if source >= 0 else self._values[-1 - source]
            good = good & fits[arguments[:, place] * values.width + values.kinds.index(kinds[place])]
        result = torch.full((len(slots),), NONE)
        chosen = good.nonzero()[:, 0]
        if len(chosen):
            result[chosen] = machine.calls(torch.full((len(chosen),), call.tool), arguments[chosen])
        return result, good

    def _solve(self, rows: Tensor, answer: Tensor, program: tuple[Call, ...], slot: int) -> None:
        """Note which problems have their answer."""
        alike = self.machine.calls.values.columns(answer.device).alike
        right = (answer > ERROR) & (alike[answer] == self.target[rows]) & self.open[rows]
        self.open[rows[right]] = False
        for row in rows[right].tolist():
            self.found[row] = (program, slot)


def written(text: object, vocabulary: dict[str, int], horizon: int) -> list[int]:
    """The tokens of a program as a user writes it: "celsius f ANS R1", or a list of these words.

    Raises:
        UserError: a word is no token, or there are too many.
    """
    if not (isinstance(text, str) or (isinstance(text, (list, tuple)) and all(isinstance(w, str) for w in text))):
        raise UserError(f"solve: {text!r} is not allowed; expected a program, such as 'celsius f ANS R1'")
    words = text.split() if isinstance(text, str) else list(text)
    tokens = [vocabulary[choose("solve: token", word, vocabulary)] for word in words]
    if not 0 < len(tokens) <= horizon:
        raise UserError(f"solve: {' '.join(words)!r} is not allowed; expected 1 to {horizon} tokens; see `calls`")
    return tokens
