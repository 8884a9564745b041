"""A task that defines only what every task must: no oracle, enumeration, parsing or rendering."""

from __future__ import annotations

from typing import Any

import torch
from echoes import Echo, Numbers, Said
from torch import Tensor

from modelnative.tasks.contract.task import Split, Step, Task


class Bare(Task[Numbers, Said]):
    """`Echo` without its optional methods."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.spec = self.echo.spec

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> Numbers:
        return self.echo.sample(stage, generator, split)

    def begin(self, problems: Numbers) -> Said:
        return self.echo.begin(problems)

    def step(self, state: Said, action: Tensor) -> Step[Said]:
        return self.echo.step(state, action)

    def feedback(self, state: Said) -> Tensor:
        return self.echo.feedback(state)

    def records(self, problems: Numbers, state: Said) -> list[dict[str, Any]]:
        return self.echo.records(problems, state)

    def registers(self, state: Said, i: int) -> dict[str, str]:
        return self.echo.registers(state, i)
