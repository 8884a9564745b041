"""A task whose observations do not identify the problem, for training a blind baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, Problems, Split, State, Step, Task


@dataclass
class BlindProblems(Problems):
    """The context is blank, and the key is that of `own`.

    Attributes:
        own: the n problems to solve.
        shown: n problems of the same stages whose feedback is shown.
    """

    own: Problems
    shown: Problems


@dataclass
class BlindState(State):
    """The states of both episodes; `done` is that of `own`."""

    own: State
    shown: State


class BlindTask(Task[BlindProblems, BlindState]):
    """Hides the problem: the context is blank, and feedback that would reveal the problem comes from another one.

    What a policy learns here is what can be done without reading the problem. With `shuffle_feedback`, another problem
    of the same stage is drawn and played with the same actions, and its feedback is shown. Otherwise the feedback is
    the episode's own, so that a policy still sees the results of its tools.

    Args:
        task: any task.
        shuffle_feedback: show the feedback of another problem; see `feedback_reveals_problem`.
    """

    def __init__(self, task: AnyTask, shuffle_feedback: bool) -> None:
        self.task, self.shuffle_feedback, self.spec = task, shuffle_feedback, task.spec

    @property
    def has_oracle(self) -> bool:
        """Whether the wrapped task has an oracle."""
        return self.task.has_oracle

    def hide(self, own: Problems, generator: torch.Generator) -> BlindProblems:
        """The same problems with a blank context."""
        shown = self.task.sample(own.stage, generator, "all") if self.shuffle_feedback else own
        return BlindProblems(own.stage, torch.full_like(own.context, self.spec.end), own.key, own, shown)

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> BlindProblems:
        return self.hide(self.task.sample(stage, generator, split), generator)

    def begin(self, problems: BlindProblems) -> BlindState:
        own = self.task.begin(problems.own)
        return BlindState(own.done, own, self.task.begin(problems.shown) if self.shuffle_feedback else own)

    def step(self, state: BlindState, action: Tensor) -> Step[BlindState]:
        own = self.task.step(state.own, action)
        shown = self.task.step(state.shown, action) if self.shuffle_feedback else own
        after = BlindState(own.done, own.state, shown.state)
        return Step(after, shown.feedback, own.reward, own.done, own.success, own.invalid)

    def feedback(self, state: BlindState) -> Tensor:
        return self.task.feedback(state.shown)

    def oracle(self, problems: BlindProblems) -> Tensor:
        return self.task.oracle(problems.own)

    def records(self, problems: BlindProblems, state: BlindState) -> list[dict[str, Any]]:
        return self.task.records(problems.own, state.own)

    def registers(self, state: BlindState, i: int) -> dict[str, str]:
        return self.task.registers(state.own, i)


def feedback_reveals_problem(task: AnyTask, problems: Problems) -> bool:
    """Whether the feedback identifies the problem, rather than only showing the results of tools.

    It does where the feedback before the first action differs between `problems` (of one stage), and where their
    contexts are all equal, because then nothing else can identify them.
    """
    first = task.feedback(task.begin(problems))
    return bool((first != first[:1]).any()) or bool((problems.context == problems.context[:1]).all())
