"""What a language model reads of `recall`, and what it calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.calls import Argument, Call, Refusal, without_arguments
from modelnative.tasks.contract.task import TaskSpec
from modelnative.tasks.tools.tool import Kind


class RecallWords:
    """What `Recall` says to a language model."""

    spec: TaskSpec
    symbols: int
    width: int
    wait: int

    def rules(self) -> str:
        """See `Task.rules`."""
        cue = "one symbol" if self.width == 1 else f"{self.width} symbols"
        alphabet = " ".join(self.spec.vocabulary[: self.symbols])
        return (
            f"A cue of {cue} out of {alphabet} is shown once, at the start. Each wait() shows distractors, which look "
            "like the cue, until GO is shown. Then type the cue: type(symbols). The last symbol ends the episode. "
            "Typing before GO, or waiting after it, ends the episode without an answer."
        )

    def prompt(self, problems: Any, i: int) -> str:
        """See `Task.prompt`."""
        return "Remember the cue, wait until GO is shown, and type the cue."

    def show(self, row: Sequence[int]) -> str:
        """See `Task.show`."""
        return "".join(self.spec.vocabulary[token] for token in row if token != self.spec.end)

    def calls(self) -> list[Call]:
        """See `Task.calls`."""
        names = set(self.spec.vocabulary[: self.symbols])

        def keys(state: Any, given: Mapping[str, Any]) -> list[str]:
            symbols = given["symbols"].replace(" ", "")
            if not symbols or set(symbols) - names or len(symbols) > self.width:
                alphabet = " ".join(self.spec.vocabulary[: self.symbols])
                raise Refusal(f"symbols: {given['symbols']!r} is not allowed; expected 1 to {self.width} of {alphabet}")
            return list(symbols)

        def read(state: Any, keys: Sequence[str]) -> tuple[dict[str, Any], int] | None:
            count = next((k for k, key in enumerate(keys) if key not in names), len(keys))
            count = min(count, self.width)
            return ({"symbols": "".join(keys[:count])}, count) if count else None

        argument = Argument((Kind(str),), f"symbols, such as {'0' * self.width!r}")
        typing = Call(
            "type", "Type symbols of the cue, in order.", keys, read, {"symbols": argument}, uses="1 for each symbol"
        )
        return [without_arguments("wait", "Wait for what is shown next.", "WAIT"), typing]

    def valid(self, state: Any) -> Tensor:
        """See `Task.valid`: WAIT before GO, and then the symbols."""
        token = torch.arange(len(self.spec.vocabulary), device=state.time.device)
        waiting = (state.time < 0)[:, None]
        return torch.where(waiting, token == self.wait, token < self.symbols) & ~state.done[:, None]
