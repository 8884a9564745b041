"""The values that tools work on, as numbers that tensors can hold, and every call ever made, to be looked up.

A value is interned: its id is its place in a table that grows while the task is used. So an id means something only
in the process that gave it, and only ids, never the order in which they were given, may decide anything.
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

NONE, ERROR = 0, 1  # ids of nothing, and of what a call that failed gives
FREE, GIVEN, NEVER = range(3)  # kinds after those of parameters


@dataclass
class Columns:
    """What is looked up for each of V values, by id.

    Attributes:
        tokens: int64 [V, F], how feedback shows it.
        alike: int64 [V], the same for values that count as the same answer.
        fits: bool [V * P], whether it can be the argument of each of P kinds, the kind counting fastest. The last three
            are FREE (no value is needed), GIVEN (any value, but not NONE or ERROR), and NEVER.
    """

    tokens: Tensor
    alike: Tensor
    fits: Tensor


class Values:
    """The table of values.

    Args:
        shown: int64 [F] as a list for a value, the tokens that feedback shows; None if it cannot be shown, and then
            there is no such value.
        same: a key that two values share if they count as the same answer.
        kinds: what arguments can be, without the last three.
        blank, error: as `shown`, for NONE and ERROR.
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
        # Written as arrays and read as tensors of the same memory: a small tensor costs ten times as much to write.
        fits = np.zeros((2, self.width), dtype=bool)
        fits[:, len(self.kinds) + FREE] = True
        self._rows = (np.array([blank, error]), np.array([-1, -2]), fits)
        self._kept = self._read()
        self._moved: dict[torch.device, tuple[int, Columns]] = {}

    def __len__(self) -> int:
        return len(self.objects)

    def intern(self, value: Value) -> int:
        """The id of a value; ERROR for one that cannot be shown."""
        key = (type(value), value)
        found = self._ids.get(key)
        if found is None:
            tokens = self.shown(value)
            if tokens is None:
                return ERROR
            found = len(self.objects)
            self._add(found, tokens, value)
            self.objects.append(value)
            self._ids[key] = found  # last: what can be found is whole
        return found

    def columns(self, device: torch.device) -> Columns:
        """The tables on `device`, with every id given so far; they may have room for more."""
        if device.type == "cpu":
            return self._kept
        count, moved = self._moved.get(device, (0, self._kept))
        if count != len(self):
            count, kept = len(self), self._kept
            moved = Columns(kept.tokens.to(device), kept.alike.to(device), kept.fits.to(device))
            self._moved[device] = (count, moved)
        return moved

    def _add(self, row: int, tokens: list[int], value: Value) -> None:
        if row == len(self._rows[1]):  # twice the room, so that growing costs as much as copying once
            shown, alike, fits = (np.concatenate([kept, np.zeros_like(kept)]) for kept in self._rows)
            self._rows = (shown, alike, fits)
        shown, alike, fits = self._rows
        # Nobody has the id of this row yet: whoever reads the tables at this moment does not see it.
        shown[row] = tokens
        alike[row] = self._alike.setdefault(self.same(value), len(self._alike))
        fits[row] = [*(kind.takes(value) for kind in self.kinds), True, True, False]
        self._kept = self._read()

    def _read(self) -> Columns:
        shown, alike, fits = map(torch.from_numpy, self._rows)
        return Columns(shown, alike, fits.view(-1))


class Calls:
    """Every call that was made of some tools, and what came of it; a call that is new is made.

    A tool is called once for each tuple of arguments, and by one thread at a time.

    Args:
        tools: at most A parameters each.
        values: of arguments and results.
    """

    def __init__(self, tools: Sequence[Tool[..., Any]], values: Values) -> None:
        self.tools, self.values = tools, values
        self.callers = [Caller(tool) for tool in tools]
        self._known: dict[tuple[int, tuple[Value, ...]], int] = {}
        self._lock = threading.Lock()
        # Ascending keys, and the result of each. Replaced as a whole, so that reading needs no lock.
        self._table = (torch.tensor([torch.iinfo(torch.int64).max]), torch.tensor([NONE]))

    def __call__(self, tool: Tensor, arguments: Tensor) -> Tensor:
        """The results of m calls: int64 [m], and int64 [m, A] of ids with NONE after the last argument -> int64 [m].

        Arguments fit their parameters; a call that fails gives ERROR. CPU tensors.
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
        """Make those of some calls that nobody made in the meantime, and publish their results."""
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
        """Arguments as the tool is given them: a whole number for a float is a float, so that both are one call."""
        values: list[Any] = self.values.objects  # not None: an argument that fits is a value
        pairs = zip(tool.parameters.values(), ids, strict=False)
        return tuple(float(values[i]) if kind.type is float else values[i] for kind, i in pairs)
