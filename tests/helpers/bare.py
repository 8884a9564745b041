"""A task that defines only what every task must: no oracle, enumeration, parsing or rendering."""

from __future__ import annotations

from typing import Any

import torch
from echoes import Echo, EchoState, Numbers
from torch import Tensor

from modelnative.tasks.contract.task import Split, Step, Task


class Bare(Task[Numbers, EchoState]):
    """`Echo` without its optional methods."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.spec = self.echo.spec

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> Numbers:
        return self.echo.sample(stage, generator, split)

    def begin(self, problems: Numbers) -> EchoState:
        return self.echo.begin(problems)

    def step(self, state: EchoState, action: Tensor) -> Step[EchoState]:
        return self.echo.step(state, action)

    def feedback(self, state: EchoState) -> Tensor:
        return self.echo.feedback(state)

    def records(self, problems: Numbers, state: EchoState) -> list[dict[str, Any]]:
        return self.echo.records(problems, state)

    def registers(self, state: EchoState, i: int) -> dict[str, str]:
        return self.echo.registers(state, i)
