"""Tables of the values that tools work on, and of all calls that were made.

A value is interned: its id is its index in a table that grows while the task is used. Ids are valid in their process
only, and results must not depend on the order in which ids were given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelnative.tasks.contract.sampling import content_key
from modelnative.tasks.tools.execution import Caller
from modelnative.tasks.tools.tool import Kind, Tool, Value

NONE, ERROR = 0, 1  # ids for no value, and for the result of a call that failed
FREE, GIVEN, NEVER = range(3)  # kinds after those of the parameters


@dataclass
class ValueColumns:
    """Properties of V values, by id.

    Attributes:
        tokens: int64 [V, F], the encoding in feedback.
        alike: int64 [V], equal for values that are the same answer.
        fits: bool [V * P], whether the value fits each of P kinds of arguments, with the kind changing fastest. The
            last three kinds are FREE (anything, also no value), GIVEN (any value but NONE and ERROR), and NEVER.
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
        # Written as NumPy arrays and read as tensors that share their memory: writing to small tensors is slow.
        fits = np.zeros((2, self.width), dtype=bool)
        fits[:, len(self.kinds) + FREE] = True
        self._rows = (np.array([blank, error]), np.array([-1, -2]), fits)
        self._kept = self._read()
        self._moved: dict[torch.device, tuple[int, ValueColumns]] = {}

    def __len__(self) -> int:
        return len(self.objects)

    def intern(self, value: Value) -> int:
        """Return the id of a value; ERROR if it cannot be shown."""
        key = (type(value), value)
        found = self._ids.get(key)
        if found is None:
            tokens = self.shown(value)
            if tokens is None:
                return ERROR
            found = len(self.objects)
            self._add(found, tokens, value)
            self.objects.append(value)
            self._ids[key] = found  # at the end, so that a value that is found is complete
        return found

    def columns(self, device: torch.device) -> ValueColumns:
        """Return the columns on `device` with all ids given so far; they may be longer."""
        if device.type == "cpu":
            return self._kept
        count, moved = self._moved.get(device, (0, self._kept))
        if count != len(self):
            count, kept = len(self), self._kept
            moved = ValueColumns(kept.tokens.to(device), kept.alike.to(device), kept.fits.to(device))
            self._moved[device] = (count, moved)
        return moved

    def _add(self, row: int, tokens: list[int], value: Value) -> None:
        if row == len(self._rows[1]):  # doubling makes the cost of growing linear
            shown, alike, fits = (np.concatenate([kept, np.zeros_like(kept)]) for kept in self._rows)
            self._rows = (shown, alike, fits)
        shown, alike, fits = self._rows
        # The id of this row is not given yet, so concurrent readers do not use it.
        shown[row] = tokens
        alike[row] = self._alike.setdefault(self.same(value), len(self._alike))
        fits[row] = [*(kind.takes(value) for kind in self.kinds), True, True, False]
        self._kept = self._read()

    def _read(self) -> ValueColumns:
        shown, alike, fits = map(torch.from_numpy, self._rows)
        return ValueColumns(shown, alike, fits.view(-1))


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
        self._known: dict[tuple[int, tuple[Value, ...]], int] = {}
        self._lock = threading.Lock()
        # Keys in ascending order and their results. The tuple is replaced as a whole, so that reading needs no lock.
        self._table = (torch.tensor([torch.iinfo(torch.int64).max]), torch.tensor([NONE]))

    def __call__(self, tool: Tensor, arguments: Tensor) -> Tensor:
        """Return the results of m calls: tools int64 [m], ids of arguments int64 [m, A] -> ids int64 [m], on the CPU.

        Arguments must fit their parameters, with NONE after the last one. A call that fails gives ERROR.
        """
        key = content_key(torch.cat([tool[:, None], arguments], 1))
        found = self._find(key)
        new = (found == NONE).nonzero()[:, 0]
        if len(new):
            with self._lock:
                self._make(tool[new], arguments[new], key[new])
            found = self._find(key)
        return found

    def _find(self, key: Tensor) -> Tensor:
        keys, results = self._table
        place = torch.searchsorted(keys, key).clamp_max(len(keys) - 1)
        return torch.where(keys.index_select(0, place) == key, results.index_select(0, place), NONE)

    def _make(self, tool: Tensor, arguments: Tensor, key: Tensor) -> None:
        """Make calls unless they were made in the meantime, and publish their results."""
        key, order = key.sort()
        fresh = (torch.cat([torch.ones_like(key[:1]), key.diff()]) != 0) & (self._find(key) == NONE)
        key, rows = key[fresh], order[fresh]
        new = [
            (t, self._typed(self.tools[t], ids))
            for t, ids in zip(tool[rows].tolist(), arguments[rows].tolist(), strict=True)
        ]
        wanted = dict.fromkeys(call for call in new if call not in self._known)
        for t, caller in enumerate(self.callers):
            calls = [call for call in wanted if call[0] == t]
            outcomes = caller([arguments for _, arguments in calls]) if calls else []
            for call, outcome in zip(calls, outcomes, strict=True):
                self._known[call] = ERROR if outcome.value is None else self.values.intern(outcome.value)
        keys, results = self._table
        given = torch.tensor([self._known[call] for call in new], dtype=torch.int64)
        merged, order = torch.cat([keys, key]).sort()
        self._table = (merged, torch.cat([results, given]).index_select(0, order))

    def _typed(self, tool: Tool[..., Any], ids: list[int]) -> tuple[Value, ...]:
        """Return the arguments of a call. Integers become floats for float parameters, so that both are one call."""
        values: list[Any] = self.values.objects  # not None: an argument that fits is a value
        pairs = zip(tool.parameters.values(), ids, strict=False)
        return tuple(float(values[i]) if kind.type is float else values[i] for kind, i in pairs)
