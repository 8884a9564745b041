"""What a training reports while it runs, and how to listen.

A callback is any callable that takes one event. `Callback` is a base class with a method for each kind of event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from modelnative import native
from modelnative.training.audit import Alarm
from modelnative.training.metrics import Metrics

if TYPE_CHECKING:
    from modelnative.training.trainer import Trainer


@dataclass(frozen=True)
class Event:
    """Something that happened in a training.

    Attributes:
        trainer: the training; callbacks may read it.
    """

    method: ClassVar[str] = ""  # of `Callback`
    trainer: Trainer | None = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True)
class Started(Event):
    """The first event.

    Attributes:
        run: the run folder, a `Run`; None without one.
        update: updates that an earlier part of the training has done.
        stages: the names of the task's stages.
        parameters: numbers in the network.
    """

    method: ClassVar[str] = "on_start"
    run: Any
    update: int
    stages: tuple[str, ...]
    parameters: int

    @property
    def notes(self) -> list[str]:
        """What the user should know of how it is computed, one line each: why not natively, and that it changed."""
        if self.trainer is None or not self.trainer.on_cpu:
            return []
        computed_by = self.trainer.computed_by
        notes = [] if computed_by == ["native"] else [f"kernels: {native.describe()}"]
        if len(computed_by) > 1:
            both = " and by ".join(computed_by)
            notes.append(
                f"kernels: computed by {both} in turn, which differ in rounding, so no training repeats this one"
            )
        return notes


@dataclass(frozen=True)
class Searched(Event):
    """The curriculum searches a procedure for a stage, before the first update.

    Attributes:
        stage: its name.
        procedures: the best so far, as words: one, or several that solve different problems; none if nothing solves a
            problem.
        solved: share of the problems tried that they solve.
        actions: that the search has played for this stage.
        found: whether that is enough: all by one, or 99% by several.
        ended: whether the search for this stage has ended.
    """

    method: ClassVar[str] = "on_search"
    stage: str
    procedures: tuple[str, ...]
    solved: float
    actions: int
    found: bool
    ended: bool


@dataclass(frozen=True)
class Updated(Event):
    """An update is done.

    Attributes:
        metrics: what it did.
        elapsed: seconds of training so far, verification included.
    """

    method: ClassVar[str] = "on_update"
    metrics: Metrics
    elapsed: float


@dataclass(frozen=True)
class Alarmed(Event):
    """An audit of an update found something wrong.

    Attributes:
        update: its number.
        alarm: what is wrong.
    """

    method: ClassVar[str] = "on_alarm"
    update: int
    alarm: Alarm


class Callback:
    """The base class of callbacks: override the methods of the events that you need.

    Example:
        >>> class Entropy(Callback):
        ...     def on_update(self, event: Updated) -> None:
        ...         print(event.metrics.update, event.metrics.entropy)
    """

    def __call__(self, event: Any) -> None:
        """Call the method of the event."""
        getattr(self, event.method, _ignore)(event)

    def on_start(self, event: Started) -> None:
        """The training starts, or continues after an interruption."""

    def on_search(self, event: Searched) -> None:
        """The curriculum searches a procedure for a stage."""

    def on_update(self, event: Updated) -> None:
        """An update is done."""

    def on_alarm(self, event: Alarmed) -> None:
        """An audit of an update found something wrong."""

    def on_verify(self, event: Any) -> None:
        """Every training problem was played greedily: `Verified`."""

    def on_checkpoint(self, event: Any) -> None:
        """The state must be kept now: `Checkpointed`."""

    def on_finish(self, event: Any) -> None:
        """The training has ended and its best weights were evaluated: `Finished`."""

    def on_interrupt(self, event: Any) -> None:
        """A signal ended the training after an update: `Interrupted`."""


def _ignore(event: Any) -> None:
    pass


CallbackLike = Callable[[Any], None]
