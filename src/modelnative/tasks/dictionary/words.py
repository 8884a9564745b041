"""What a language model reads of `dictionary`, and what it calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.calls import Argument, Call, without_arguments
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
            without_arguments("next", "Show the next pair, or the first query.", "NEXT"),
            Call("answer", "Answer the query.", _answer_keys, _read_answer, {"value": value}),
        ]
        if self.store:
            both = {"key": key, "value": value}
            calls.append(Call("put", "Write a pair to the store.", _put_keys, _read_put, both, uses="3"))
            calls.append(
                Call("get", "Show the value of a key in the store.", _get_keys, _read_get, {"key": key}, uses="2")
            )
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


def _answer_keys(state: Any, given: Mapping[str, Any]) -> list[str]:
    return [str(given["value"])]


def _read_answer(state: Any, keys: Sequence[str]) -> tuple[dict[str, Any], int] | None:
    return ({"value": int(keys[0])}, 1) if keys[0].isdigit() else None


def _put_keys(state: Any, given: Mapping[str, Any]) -> list[str]:
    return ["PUT", given["key"], str(given["value"])]


def _read_put(state: Any, keys: Sequence[str]) -> tuple[dict[str, Any], int] | None:
    fits = len(keys) > 2 and keys[0] == "PUT" and keys[1] in KEYS and keys[2].isdigit()
    return ({"key": keys[1], "value": int(keys[2])}, 3) if fits else None


def _get_keys(state: Any, given: Mapping[str, Any]) -> list[str]:
    return ["GET", given["key"]]


def _read_get(state: Any, keys: Sequence[str]) -> tuple[dict[str, Any], int] | None:
    return ({"key": keys[1]}, 2) if len(keys) > 1 and keys[0] == "GET" and keys[1] in KEYS else None
