"""A task as the blind have it: they act on one problem, and nothing that they are shown tells which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, Problems, Split, State, Step, Task

SEED = 1  # draws the problems that are shown in place of those that are listed or typed


@dataclass
class Veiled(Problems):
    """Both problems of each episode; the context is blank, the key that of `own`.

    Attributes:
        own: the n problems that are to be solved.
        other: n problems of the same stages, drawn apart from them.
    """

    own: Problems
    other: Problems


@dataclass
class Veil(State):
    """Both episodes; `done` is that of `own`."""

    own: State
    other: State


class Blindfolded(Task[Veiled, Veil]):
    """The same task, for eyes that are shut: the context is blank, and feedback that shows the problem is another's.

    What is learned here is what can be done without reading the problem. The feedback stays the episode's own where it
    is what tools answer to keys: who tries something may see what comes of it. Where it shows the problem itself (see
    `streams`), another problem of the stage, drawn by chance, is played with the same keys, and its feedback is shown.
    So time passes as ever, but no key can depend on the problem.

    Args:
        task: any.
        streams: whether the feedback shows the problem.
    """

    def __init__(self, task: AnyTask, streams: bool) -> None:
        self.task, self.streams, self.spec = task, streams, task.spec

    def veiled(self, own: Problems, generator: torch.Generator) -> Veiled:
        """Hide them."""
        other = self.task.sample(own.stage, generator, "all") if self.streams else own
        return Veiled(own.stage, torch.full_like(own.context, self.spec.end), own.key, own, other)

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> Veiled:
        return self.veiled(self.task.sample(stage, generator, split), generator)

    def begin(self, problems: Veiled) -> Veil:
        own = self.task.begin(problems.own)
        return Veil(own.done, own, self.task.begin(problems.other) if self.streams else own)

    def step(self, state: Veil, action: Tensor) -> Step[Veil]:
        step = self.task.step(state.own, action)
        other = self.task.step(state.other, action) if self.streams else step
        after = Veil(step.done, step.state, other.state)
        return Step(after, other.feedback, step.reward, step.done, step.success, step.invalid)

    def feedback(self, state: Veil) -> Tensor:
        return self.task.feedback(state.other)

    def oracle(self, problems: Veiled) -> Tensor:
        return self.task.oracle(problems.own)

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[Veiled]:
        generator = torch.Generator().manual_seed(SEED)
        return (self.veiled(own, generator) for own in self.task.enumerate(stage, split, chunk))

    def parse(self, stage: int, text: str) -> Veiled:
        return self.veiled(self.task.parse(stage, text), torch.Generator().manual_seed(SEED))

    def render(self, problems: Veiled, i: int) -> str:
        return self.task.render(problems.own, i)

    def records(self, problems: Veiled, state: Veil) -> list[dict[str, Any]]:
        return self.task.records(problems.own, state.own)

    def registers(self, state: Veil, i: int) -> dict[str, str]:
        return self.task.registers(state.own, i)

    def options(self) -> dict[str, Any]:
        return self.task.options()


def streams(task: AnyTask, problems: Problems) -> bool:
    """Whether the feedback shows the problem itself, and not only what tools answer to keys.

    So it is where the context is the same for all `problems` (of one stage), because then nothing else can show them;
    and where the feedback before the first key is not, because nobody asked for it.
    """
    shown = task.feedback(task.begin(problems))
    return bool((shown != shown[:1]).any()) or bool((problems.context == problems.context[:1]).all())
