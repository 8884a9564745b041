"""What a language model reads of `dictionary`, and what it calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.calls import Argument, Call, pattern_call
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import TaskSpec
from modelnative.tasks.dictionary.tables import ANSWERS, ASK, KEYS, NEXT, OVER, SYMBOLS, VOCABULARY, DictionaryTables
from modelnative.tasks.tools.tool import Kind

VALUES = tuple(range(SYMBOLS))


class DictionaryWords:
    """What `Dictionary` says to a language model."""

    spec: TaskSpec
    store: bool
    tables: PerDevice[DictionaryTables]

    def rules(self) -> str:
        """See `Task.rules`."""
        shown = (
            "Pairs of a key (a to p) and a value (0 to 15) are shown one at a time, such as 'c = 7'; next() shows the "
            "next one. After the last pair next() shows a query, such as 'c = ?'. Answer it with the value of that "
            "key: answer(value). A right answer leads to the next query, a wrong one ends the episode."
        )
        if not self.store:
            return f"{shown} next() during a query, or an answer while pairs are shown, ends the episode."
        return (
            f"{shown}\nput(key, value) writes a pair to a store while pairs are shown; get(key) reads it during a "
            "query. An answer counts only right after get(key) of the queried key, with the value that get shows. "
            "Any other call at these times ends the episode."
        )

    def prompt(self, problems: Any, i: int) -> str:
        """See `Task.prompt`."""
        return "Remember the pairs and answer the queries."

    def show(self, row: Sequence[int]) -> str:
        """See `Task.show`."""
        key, value = row
        if key == self.spec.end:
            return ""
        written = "nothing" if value == self.spec.end else "?" if value == ASK else self.spec.vocabulary[value]
        return f"{self.spec.vocabulary[key]} = {written}"

    def calls(self) -> list[Call]:
        """See `Task.calls`."""
        key = Argument((Kind(str, tuple(KEYS)),), "a key")
        value = Argument((Kind(int, VALUES),), "a value")
        calls = [
            pattern_call("next", "Show the next pair, or the first query.", ("NEXT",)),
            pattern_call("answer", "Answer the query.", ("value",), {"value": value}),
        ]
        if self.store:
            both = {"key": key, "value": value}
            calls.append(pattern_call("put", "Write a pair to the store.", ("PUT", "key", "value"), both))
            calls.append(pattern_call("get", "Show the value of a key in the store.", ("GET", "key"), {"key": key}))
        return calls

    def valid(self, state: Any) -> Tensor:
        """See `Task.valid`: what the tables in `Dictionary` list."""
        size, querying = len(self.spec.vocabulary), state.place >= 0
        token = torch.arange(size, device=state.place.device)
        if not self.store:
            accepted = torch.where(querying[:, None], token >> 4 == 1, token == NEXT)
        else:
            row = (querying + 2 * state.mode)[:, None] * len(VOCABULARY) + token
            move = self.tables(token.device).moves[row]
            accepted = (move & 7 != OVER) | (move & ANSWERS > 0)
        return accepted & ~state.done[:, None]
