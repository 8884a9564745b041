"""Search for few programs of tool calls that together solve many problems.

The shortest program of each problem is often a coincidence of its numbers, and teaches nothing about other problems. So
every program is tried on all problems at once, and those that solve the most problems per token are taken.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modelnative.tasks.tools.call_table import ERROR, NONE
from modelnative.tasks.tools.interpreter import Interpreter

BUDGET = 500_000  # programs and prefixes of programs that are tried before the search gives up

# A call of a program: the index of a tool, and the source of each argument: the index of a slot (inputs, then results),
# or −1 − i for constant i.
ProgramCall: TypeAlias = tuple[int, tuple[int, ...]]


class ProgramSearch:
    """Tries all programs with 1 call, then with 2, and so on, until every problem is solved by one of them.

    A program answers with an input or with the result of its last call. Programs are skipped if a result is not used,
    if a call gives in no problem a result that is new, and if they differ from another program by the order of
    independent calls alone. Each call is made once for equal arguments: the values that a call gives in the N problems
    are a vector of ids, and equal vectors are one.

    Args:
        interpreter: the tools, their calls and the constants.
        inputs: int64 [N, inputs], ids of the inputs of N problems, NONE where a problem does not have one.
        targets: int64 [N], the ids of the right answers.

    Attributes:
        unsolved: the indices of the problems that no program solves.
        exhausted: whether all programs were tried; otherwise every problem is solved, or the budget was used up.
    """

    def __init__(self, interpreter: Interpreter, inputs: Tensor, targets: Tensor) -> None:
        self.interpreter, self.tools, self.count = interpreter, interpreter.calls.tools, len(targets)
        self._targets = interpreter.values.columns(targets.device).alike[targets].numpy()
        self._widest = max(interpreter.widest, 1)
        kinds = interpreter.values.kinds
        self._kinds = [[kinds.index(kind) for kind in tool.parameters.values()] for tool in self.tools]
        self._places = {constant: -1 - i for i, constant in enumerate(interpreter.constants)}
        self._vectors: list[npt.NDArray[np.int64]] = []
        self._fits: list[npt.NDArray[np.bool_]] = []  # of each vector: [kinds, N]
        self._solved: list[int] = []  # by each vector: bit i stands for problem i
        self._ids: dict[bytes, int] = {}
        self._results: dict[tuple[int, tuple[int, ...]], int] = {}
        self._tried = self._reached = 0
        # The shortest program with the length, the calls and the slot of the answer, by the problems that it solves.
        self._found: dict[int, tuple[int, tuple[ProgramCall, ...], int]] = {}
        self._constants = [self._vector(np.full(self.count, i)) for i in interpreter.constants.values()]
        slots = [self._vector(column) for column in inputs.T.contiguous().numpy()]
        for slot, vector in enumerate(slots):
            self._keep((), slot, vector)
        everything, calls = (1 << self.count) - 1, 0
        while self._reached != everything and calls < interpreter.most_results and self._tried < BUDGET:
            calls += 1
            self._extend((), slots, calls)
        self.unsolved = [i for i in range(self.count) if not self._reached >> i & 1]
        self.exhausted = self._tried < BUDGET

    def chosen(self) -> list[list[str]]:
        """Return few programs, as the names of their tokens, that solve all problems but `unsolved`; broadest first."""
        missing, chosen = self._reached, set[int]()
        while missing:
            best = max(self._found, key=lambda solved: (solved & missing).bit_count() / self._found[solved][0])
            chosen.add(best)
            missing &= ~best
        for solved in sorted(chosen, key=int.bit_count):
            if functools.reduce(operator.or_, chosen - {solved}, 0) == self._reached:
                chosen.remove(solved)  # the others solve the same problems
        slots = self.interpreter.slots
        names = [*slots, *(repr(constant) for _, constant in list(self._places)[::-1])]  # constant i has index −1 − i
        programs = []
        for solved in sorted(chosen, key=int.bit_count, reverse=True):
            _, calls, answer = self._found[solved]
            words = [[self.tools[tool].name, *(names[source] for source in sources)] for tool, sources in calls]
            programs.append([*itertools.chain(*words), "ANS", slots[answer]])
        return programs

    def _keep(self, calls: tuple[ProgramCall, ...], answer: int, vector: int) -> None:
        """Keep a program for the problems that it solves, unless a program that is no longer solves the same ones."""
        solved, length = self._solved[vector], 2 + sum(1 + len(sources) for _, sources in calls)
        if solved and (solved not in self._found or length < self._found[solved][0]):
            self._found[solved] = (length, calls, answer)
            self._reached |= solved

    def _extend(self, program: tuple[ProgramCall, ...], slots: list[int], left: int) -> None:
        """Try all programs that extend `program` by exactly `left` calls. `slots` are vectors, results at the end."""
        for tool, sources in self._next(program, slots, left):
            self._tried += 1
            if self._tried > BUDGET:
                return
            given = tuple(slots[source] if source >= 0 else self._constants[-1 - source] for source in sources)
            if (tool, given) not in self._results:
                self._results[tool, given] = self._call(tool, given)
            result, longer = self._results[tool, given], (*program, (tool, sources))
            if result in slots:
                continue
            if left == 1:
                self._keep(longer, len(slots), result)
            elif self._vectors[result].any():
                self._extend(longer, [*slots, result], left - 1)

    def _next(self, program: tuple[ProgramCall, ...], slots: list[int], left: int) -> Iterator[ProgramCall]:
        """Yield the calls that may follow, if `left` calls are left."""
        used = {source for _, sources in program for source in sources}
        unused = {len(slots) - 1 - i for i in range(len(program))} - used
        for index, tool in enumerate(self.tools):
            places = []
            for column, kind in zip(self._kinds[index], tool.parameters.values(), strict=True):
                fitting = [slot for slot, vector in enumerate(slots) if self._fits[vector][column].any()]
                places.append([*fitting, *(self._places[type(choice), choice] for choice in kind.choices)])
            for sources in itertools.product(*places):
                # Each later call uses its arguments and adds a result that must be used, except the last one.
                if len(unused.difference(sources)) > (left - 1) * (self._widest - 1):
                    continue
                # Independent calls are in ascending order.
                if program and len(slots) - 1 not in sources and (index, sources) <= program[-1]:
                    continue
                yield index, sources

    def _call(self, tool: int, given: tuple[int, ...]) -> int:
        """Make a call in all problems: the vector of its results, NONE where it cannot be made or fails."""
        good = np.ones(self.count, dtype=np.bool_)
        for vector, column in zip(given, self._kinds[tool], strict=True):
            good &= self._fits[vector][column]
        arguments = np.array([self._vectors[vector][good] for vector in given]).reshape(len(given), int(good.sum())).T
        results = np.full(self.count, NONE)
        results[good] = self.interpreter.calls.results([(tool, *ids) for ids in arguments.tolist()])
        results[results == ERROR] = NONE
        return self._vector(results)

    def _vector(self, values: npt.NDArray[np.int64]) -> int:
        """Return the index of a vector, which is added if it is new."""
        index = self._ids.setdefault(values.tobytes(), len(self._vectors))
        if index == len(self._vectors):
            columns, ids = self.interpreter.values.columns(torch.device("cpu")), torch.from_numpy(values)
            right = (columns.alike[ids].numpy() == self._targets) & (values > ERROR)
            self._vectors.append(values)
            self._fits.append(columns.fits[ids].T.numpy())
            self._solved.append(int.from_bytes(np.packbits(right, bitorder="little").tobytes(), "little"))
        return index
