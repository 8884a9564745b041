"""The sweep itself: keeps the crew busy, tries again what died, writes the table; tells every step as it is done."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from modelnative.runs.run import Run
from modelnative.sweeps.executors import Crew, Outcome
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.results import Row, read_row, write_results

PULSE = 0.5  # seconds between two signs of life


@dataclass(frozen=True)
class SweepBegun:
    """The first event.

    Attributes:
        sweep: the folder.
        done: trials that an earlier call has finished.
        jobs: trials at a time.
        place: where they run.
    """

    sweep: Sweep
    done: int
    jobs: int
    place: str


@dataclass(frozen=True)
class TrialBegun:
    """A process was asked for; `update` is where its training continues, 0 at the start."""

    trial: Trial
    update: int


@dataclass(frozen=True)
class TrialDied:
    """A trial's process died, of a signal or a crash; `left` tries remain."""

    trial: Trial
    reason: str
    left: int


@dataclass(frozen=True)
class TrialEnded:
    """A trial has its result, or has failed for good; the table says so already."""

    trial: Trial
    row: Row


@dataclass(frozen=True)
class Pulse:
    """How far the sweep is.

    Attributes:
        total, finished, failed: trials.
        running: for each trial under way its newest update, and the success of its worst stage if it is known.
        left: estimated seconds to the end; None until a trial has finished.
    """

    total: int
    finished: int
    failed: int
    running: dict[str, tuple[int, float | None]]
    left: float | None


@dataclass(frozen=True)
class SweepStopping:
    """A signal asked to stop; the trials finish the update under way."""

    signal: int


@dataclass(frozen=True)
class SweepInterrupted:
    """The last event after a signal: every trial has stopped with a checkpoint."""

    sweep: Sweep
    signal: int
    unfinished: int


@dataclass(frozen=True)
class SweepEnded:
    """The last event: every trial has finished, or failed for good."""

    sweep: Sweep
    rows: tuple[Row, ...]


Event = SweepBegun | TrialBegun | TrialDied | TrialEnded | Pulse | SweepStopping | SweepInterrupted | SweepEnded


def drive(sweep: Sweep, crew: Crew, retries: int) -> Iterator[Event]:
    """Carry out all that is unfinished.

    Ctrl-C and SIGTERM stop the trials after their current update, with checkpoints; a second Ctrl-C ends them at once.

    Args:
        sweep: what to do. The caller holds its lock.
        crew: who does it; the caller closes it.
        retries: how often a trial that dies is tried again.

    Raises:
        UserError: the table cannot be written; the trials' checkpoints stand.
    """
    trials = {trial.name: trial for trial in sweep.trials}
    rows = {trial.name: read_row(sweep, trial) for trial in sweep.trials}
    waiting = deque(trial for trial in sweep.trials if rows[trial.name].status != "finished")
    started: dict[str, float] = {}  # of the trials under way
    deaths: Counter[str] = Counter()
    pace = _Pace()
    stopping = False

    def pulse() -> Pulse:
        status = Counter(row.status for row in rows.values())
        running = {name: _newest(sweep.run(trials[name])) for name in started}
        left = pace.left(started, len(waiting), crew.jobs)
        return Pulse(len(rows), status["finished"], status["failed"], running, left)

    with _signals() as received:
        write_results(sweep, list(rows.values()))
        yield SweepBegun(sweep, len(rows) - len(waiting), crew.jobs, crew.place)
        while started or (waiting and not stopping):
            if received and not stopping:
                stopping = True
                crew.stop()
                yield SweepStopping(received[0])
                continue
            while waiting and len(started) < crew.jobs and not stopping:
                trial = waiting.popleft()
                crew.start(trial)
                started[trial.name] = time.monotonic()
                yield TrialBegun(trial, _checkpoint(sweep.run(trial)))
            for name, outcome in crew.ended(PULSE):
                trial, seconds = trials[name], time.monotonic() - started.pop(name)
                if not outcome.finished and not outcome.refused and not sweep.finished(trial):
                    if stopping:
                        continue  # a later call continues it
                    deaths[name] += 1
                    reason = "stopped by a signal from outside" if outcome.stopped else outcome.said
                    if deaths[name] <= retries:
                        # Next in line: what is begun is finished before something new is begun.
                        waiting.appendleft(trial)
                        yield TrialDied(trial, reason, retries - deaths[name])
                        continue
                    outcome = Outcome(outcome.code, f"died {deaths[name]} times, last: {reason}")
                rows[name] = read_row(sweep, trial, failure=outcome.said)
                pace.add(seconds)
                write_results(sweep, list(rows.values()))
                yield TrialEnded(trial, rows[name])
            yield pulse()
        unfinished = sum(row.status == "unfinished" for row in rows.values())
        if stopping and unfinished:
            yield SweepInterrupted(sweep, received[0], unfinished)
        else:
            yield SweepEnded(sweep, tuple(rows.values()))


class _Pace:
    """How long the rest will take, from how long trials have taken."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def left(self, started: dict[str, float], waiting: int, jobs: int) -> float | None:
        if not self._seconds:
            return None
        mean = sum(self._seconds) / len(self._seconds)
        now = time.monotonic()
        under_way = [max(0.0, mean - (now - start)) for start in started.values()]
        return max([*under_way, 0.0, (sum(under_way) + mean * waiting) / max(1, min(jobs, len(under_way) + waiting))])


def _checkpoint(run: Run) -> int:
    """The update that a continuation would start from."""
    paths = run.checkpoints()
    return int(paths[-1].stem) if paths else 0


def _newest(run: Run) -> tuple[int, float | None]:
    """The newest update in a run's metrics, and the success of its worst stage; reads the end of the file only."""
    try:
        with open(run.metrics_path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            lines = file.read().split(b"\n")
    except OSError:
        return 0, None
    for line in reversed(lines[:-1]):  # what follows the last line break is being written
        try:
            metrics = json.loads(line)
            rates = metrics["success"]
            return metrics["update"], None if None in rates else min(rates)
        except (ValueError, KeyError, TypeError):
            continue
    return 0, None


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; the second SIGINT raises KeyboardInterrupt."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
