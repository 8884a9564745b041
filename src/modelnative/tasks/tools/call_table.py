"""Tables of the values that tools work on, and of all calls that were made.

A value is interned: its id is its index in a table that grows while the task is used. Ids are valid in their process
only, and results must not depend on the order in which ids were given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.sampling import content_key
from modelnative.tasks.tools.execution import Caller
from modelnative.tasks.tools.tool import TOO_LONG, Kind, Tool, Value

NONE, ERROR = 0, 1  # ids for no value, and for the result of a call that failed
FREE, GIVEN, NEVER = range(3)  # kinds after those of the parameters


@dataclass
class ValueColumns(Batch):
    """Properties of V values, by id.

    Attributes:
        tokens: int64 [V, F], the encoding in feedback.
        alike: int64 [V], equal for values that are the same answer.
        fits: bool [V, P], whether the value fits each of P kinds of arguments. The last three kinds are FREE (anything,
            also no value), GIVEN (any value but NONE and ERROR), and NEVER.
    """

    tokens: Tensor
    alike: Tensor
    fits: Tensor


class ValueTable:
    """The table of values.

    Args:
        shown: returns the F tokens of a value in feedback; None if it cannot be shown and is not allowed.
        same: returns a key that is equal for values that are the same answer.
        kinds: the kinds of arguments, without the last three.
        blank, error: the tokens for NONE and ERROR.
    """

    def __init__(
        self,
        shown: Callable[[Value], list[int] | None],
        same: Callable[[Value], object],
        kinds: Sequence[Kind],
        blank: list[int],
        error: list[int],
    ) -> None:
        self.shown, self.same, self.kinds = shown, same, list(dict.fromkeys(kinds))
        self.width = len(self.kinds) + 3
        self.objects: list[Value | None] = [None, None]
        self._ids: dict[tuple[type, Value], int] = {}
        self._alike: dict[object, int] = {}
        fits = [False] * len(self.kinds) + [True, False, False]
        columns = ValueColumns(torch.tensor([blank, error]), torch.tensor([-1, -2]), torch.tensor([fits, fits]))
        self._columns = {torch.device("cpu"): columns}
        self._new: list[tuple[list[int], int, list[bool]]] = []  # rows that are not in `_columns` yet
        self._lock = threading.Lock()

    def intern(self, value: Value) -> int:
        """Return the id of a value; ERROR if it cannot be shown."""
        key = (type(value), value)
        with self._lock:
            if key not in self._ids:
                tokens = self.shown(value)
                if tokens is None:
                    return ERROR
                alike = self._alike.setdefault(self.same(value), len(self._alike))
                fits = [*(kind.takes(value) for kind in self.kinds), True, True, False]
                self._new.append((tokens, alike, fits))
                self._ids[key] = len(self.objects)
                self.objects.append(value)
            return self._ids[key]

    def columns(self, device: torch.device) -> ValueColumns:
        """Return the columns on `device`, with all ids given so far."""
        with self._lock:
            if self._new:
                rows = ValueColumns(*map(torch.tensor, zip(*self._new, strict=True)))
                self._columns = {torch.device("cpu"): Batch.cat([self._columns[torch.device("cpu")], rows])}
                self._new = []
            if device not in self._columns:
                self._columns[device] = self._columns[torch.device("cpu")].to(device)
            return self._columns[device]


class CallTable:
    """The results of all calls that were made; new calls are made when they are looked up.

    A tool is called once for each tuple of arguments, by one thread at a time.

    Args:
        tools: the tools, with at most A parameters each.
        values: the table of arguments and results.
    """

    def __init__(self, tools: Sequence[Tool[..., Any]], values: ValueTable) -> None:
        self.tools, self.values = tools, values
        self.callers = [Caller(tool) for tool in tools]
        self._by_values: dict[tuple[int, tuple[Value, ...]], int] = {}
        self._by_ids: dict[tuple[int, ...], int] = {}
        self._lock = threading.Lock()
        # The results by hash: keys in ascending order. The tuple is replaced as a whole, so that reading needs no lock.
        self._table = (torch.tensor([torch.iinfo(torch.int64).max]), torch.tensor([NONE]))

    def __call__(self, tool: Tensor, arguments: Tensor) -> Tensor:
        """Return the results of m calls: tools int64 [m], ids of arguments int64 [m, A] -> ids int64 [m], on the CPU.

        Arguments must fit their parameters, with NONE after the last one. A call that fails gives ERROR.
        """
        key = content_key(torch.cat([tool[:, None], arguments], 1))
        keys, results = self._table
        place = torch.searchsorted(keys, key).clamp_max(len(keys) - 1)
        found = torch.where(keys.index_select(0, place) == key, results.index_select(0, place), NONE)
        new = (found == NONE).nonzero()[:, 0]
        if len(new):
            distinct, same = key[new].unique(return_inverse=True)
            first = torch.full_like(distinct, len(new)).scatter_reduce_(0, same, torch.arange(len(new)), "amin")
            in_order = first.argsort()  # calls are made in the order of the rows
            rows = new[first[in_order]]
            pairs = zip(tool[rows].tolist(), arguments[rows].tolist(), strict=True)
            made = torch.tensor(self.results([(t, *ids[: len(self.tools[t].parameters)]) for t, ids in pairs]))
            found[new] = torch.empty_like(made).index_copy(0, in_order, made).index_select(0, same)
            with self._lock:
                keys, results = self._table
                keys, order = torch.cat([keys, key[rows]]).sort()
                self._table = (keys, torch.cat([results, made]).index_select(0, order))
        return found

    def results(self, calls: Sequence[tuple[int, ...]]) -> list[int]:
        """Return the ids of the results of calls: the index of a tool and the id of each argument."""
        with self._lock:
            new = {call: self._typed(call) for call in calls if call not in self._by_ids}
            wanted = dict.fromkeys(call for call in new.values() if call not in self._by_values)
            for t, caller in enumerate(self.callers):
                mine = [call for call in wanted if call[0] == t]
                outcomes = caller([arguments for _, arguments in mine]) if mine else []
                for call, outcome in zip(mine, outcomes, strict=True):
                    result = ERROR if outcome.value is None else self.values.intern(outcome.value)
                    if result == ERROR and outcome.value is not None:
                        caller.add_error(f"{TOO_LONG}: {outcome.value!r}")
                    self._by_values[call] = result
            self._by_ids.update({call: self._by_values[typed] for call, typed in new.items()})
            return [self._by_ids[call] for call in calls]

    def notes(self) -> list[str]:
        """Return a line for each kind of error of each tool."""
        return [note for caller in self.callers for note in caller.notes()]

    def _typed(self, call: tuple[int, ...]) -> tuple[int, tuple[Value, ...]]:
        """Return a call with its values. Integers become floats for float parameters, so that both are one call."""
        values: list[Any] = self.values.objects  # not None: an argument that fits is a value
        pairs = zip(self.tools[call[0]].parameters.values(), call[1:], strict=True)
        return call[0], tuple(float(values[i]) if kind.type is float else values[i] for kind, i in pairs)
