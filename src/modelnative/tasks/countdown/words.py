"""What a language model reads of `countdown`, and what it calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.calls import Argument, Call, Refusal, without_arguments
from modelnative.tasks.contract.task import TaskSpec
from modelnative.tasks.countdown.problems import VALUE
from modelnative.tasks.countdown.solver import LIMIT
from modelnative.tasks.countdown.tables import DIGITS
from modelnative.tasks.tools.tool import Kind

MEANINGS = {
    "+": "+ adds",
    "-": "- gives the difference, never negative",
    "*": "* multiplies",
    "/": "/ divides the larger number by the smaller one, without a remainder",
}


class CountdownWords:
    """What `Countdown` says to a language model."""

    spec: TaskSpec
    operators: str
    slots: str
    shown: str
    tries: int
    ctx: int
    minus: int
    undo: int
    operations: list[tuple[int, int, int]]

    def rules(self) -> str:
        """See `Task.rules`."""
        rules = (
            "combine(first, operator, second) replaces two of your numbers by the result: "
            f"{'; '.join(MEANINGS[o] for o in self.operators)}. Results are whole numbers from 1 to {LIMIT}. Use each "
            "number exactly once. answer() ends the episode: it is right if one number is left and equals the target."
        )
        if self.tries == 1:
            return rules
        return f"{rules}\nback() takes back the last combination, which cannot be repeated on the same numbers."

    def prompt(self, problems: Any, i: int) -> str:
        """See `Task.prompt`."""
        tokens, width = problems.context[i].tolist(), (self.spec.context_length - self.spec.positions.index("CTX") - 1)
        place, width = tokens.index(self.ctx), width // len(self.slots)
        numbers = [self._number(tokens[k : k + width]) for k in range(place + 1, len(tokens), width)]
        return f"Make {self._number(tokens[:place])} from the numbers {' '.join(filter(None, numbers))}."

    def show(self, row: Sequence[int]) -> str:
        """See `Task.show`."""
        last, rest = self._number(row[:DIGITS]), row[DIGITS:]
        parts = [f"result: {last}"] if last else []
        if self.shown != "last":
            if missing := self._number(rest[: DIGITS + 1]):
                parts.append(f"target minus result: {missing}")
            rest = rest[DIGITS + 1 :]
            board = [self._number(rest[DIGITS * k : DIGITS * (k + 1)]) for k in range(len(self.slots))]
            parts.append("numbers: " + " ".join(f"{s}={b}" for s, b in zip(self.slots, board, strict=True) if b))
            rest = rest[DIGITS * len(self.slots) :]
        if self.shown == "tried":
            tried = [self.spec.vocabulary[token] for token in rest[:-2] if token != self.spec.end]
            parts.append(f"tried: {' '.join(tried) or 'nothing'}")
            parts.append(f"keys without effect: {self._number(rest[-2:])}")
        return "; ".join(parts)

    def calls(self) -> list[Call]:
        """See `Task.calls`."""
        number = Kind(int)
        combine = {
            "first": Argument((number,), "one of your numbers"),
            "operator": Argument((Kind(str, tuple(self.operators)),), "the operation"),
            "second": Argument((number,), "another of your numbers"),
        }
        calls = [
            Call("combine", "Replace two numbers by the result of an operation.", self._keys, self._read, combine),
            without_arguments("answer", "Answer with the number that is left, which ends the episode.", "ANS"),
        ]
        if self.tries > 1:
            calls.append(without_arguments("back", "Take back the last combination.", "BACK"))
        return calls

    def valid(self, state: Any) -> Tensor:
        """See `Task.valid`: operations with a result that are not blocked, BACK after an operation, ANS and EOS."""
        n, size = len(state), len(self.spec.vocabulary)
        rows = torch.arange(n, device=state.done.device).repeat_interleave(size)
        token = torch.arange(size, device=state.done.device)
        after = self.step(state[rows], token.repeat(n)).state  # type: ignore[attr-defined]
        changes = (after.made != state.made[rows]).view(n, size)
        return (changes | (token >= size - 2)) & ~state.done[:, None]

    def _number(self, tokens: Sequence[int]) -> str:
        """The number that tokens write, without leading zeros; empty if there is none."""
        written = "".join(self.spec.vocabulary[token] for token in tokens if token != self.spec.end)
        return str(int(written)) if written else ""

    def _held(self, state: Any) -> list[int]:
        """The contents of the slots; 0 for an empty one."""
        values = int(state.values[0])
        return [values >> VALUE * k & (1 << VALUE) - 1 for k in range(len(self.slots))]

    def _keys(self, state: Any, given: Mapping[str, Any]) -> list[str]:
        held, key = self._held(state), given["operator"]
        numbers = " ".join(str(number) for number in held if number)
        for name in ("first", "second"):
            if given[name] <= 0 or given[name] not in held:
                raise Refusal(f"{name}: {given[name]} is none of your numbers, which are {numbers}")
        one = held.index(given["first"])
        others = [k for k, number in enumerate(held) if number == given["second"] and k != one]
        if not others:
            raise Refusal(f"second: you have the number {given['second']} only once; your numbers are {numbers}")
        first, second = sorted((one, others[0]))
        name = f"{self.slots[first]}{key}{self.slots[second]}"
        if not bool(self.valid(state)[0, self.spec.vocabulary.index(name)]):
            blocked = ", and that was not tried before" if self.tries > 1 else ""
            written = f"{given['first']} {key} {given['second']}"
            raise Refusal(f"{written} is not possible; expected a whole result from 1 to {LIMIT}{blocked}")
        return [name]

    def _read(self, state: Any, keys: Sequence[str]) -> tuple[dict[str, Any], int] | None:
        held, key = self._held(state), keys[0]
        if len(key) != 3 or key[0] not in self.slots or key[2] not in self.slots:
            return None
        first, second = held[self.slots.index(key[0])], held[self.slots.index(key[2])]
        return {"first": first, "operator": key[1], "second": second}, 1
