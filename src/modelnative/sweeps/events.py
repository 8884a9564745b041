"""What happens during a sweep, as typed events. Callbacks of `modelnative.sweep` receive them one by one."""

from __future__ import annotations

from dataclasses import dataclass

from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.results import Row


class SweepEvent:
    """Base class of what happens during a sweep."""


@dataclass(frozen=True)
class SweepStarted(SweepEvent):
    """The first event.

    Attributes:
        sweep: the sweep.
        finished: number of trials that an earlier call has finished.
        jobs: number of trials that run at the same time.
        place: where they run, in words.
    """

    sweep: Sweep
    finished: int
    jobs: int
    place: str


@dataclass(frozen=True)
class TrialStarted(SweepEvent):
    """The process of a trial was started. Its training continues from `update`; 0 means from the beginning."""

    trial: Trial
    update: int


@dataclass(frozen=True)
class TrialCrashed(SweepEvent):
    """The process of a trial crashed or was killed. It will be retried; `retries_left` retries remain after that."""

    trial: Trial
    reason: str
    retries_left: int


@dataclass(frozen=True)
class TrialFinished(SweepEvent):
    """A trial has its result, and the table contains it."""

    trial: Trial
    row: Row


@dataclass(frozen=True)
class TrialFailed(SweepEvent):
    """A trial has failed and will not be retried. `row.reason` says why."""

    trial: Trial
    row: Row


@dataclass(frozen=True)
class TaskNoted(SweepEvent):
    """A task has something to say to its author, see `Task.notes`. What differs in its numbers only is sent once."""

    trial: Trial
    note: str


@dataclass(frozen=True)
class TrialProgress:
    """The newest update of a running trial.

    Attributes:
        update: its number; 0 before the first.
        success: smoothed success of each stage; None: not measured yet.
        phase: what the trial does if it does not train: it plays every problem, or writes its report.
    """

    update: int = 0
    success: tuple[float | None, ...] = ()
    phase: str = ""


@dataclass(frozen=True)
class SweepProgress(SweepEvent):
    """Sent about twice a second.

    Attributes:
        total, finished, failed: numbers of trials.
        running: progress of each running trial, by name.
        seconds_left: estimated seconds to the end; None until a trial has finished.
    """

    total: int
    finished: int
    failed: int
    running: dict[str, TrialProgress]
    seconds_left: float | None


@dataclass(frozen=True)
class SweepStopping(SweepEvent):
    """A signal was received. Each running trial finishes its update and writes a checkpoint."""

    signal: int


@dataclass(frozen=True)
class SweepInterrupted(SweepEvent):
    """The last event after a signal: every trial has stopped; `unfinished` of them can be continued."""

    sweep: Sweep
    signal: int
    unfinished: int


@dataclass(frozen=True)
class SweepFinished(SweepEvent):
    """The last event: every trial has finished or failed."""

    sweep: Sweep
    rows: tuple[Row, ...]
