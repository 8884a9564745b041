"""Runs the trials of a sweep: keeps the executor busy, retries crashed trials, updates the table, reports events."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator

from modelnative.errors import UserError
from modelnative.runs.run import Run
from modelnative.runs.signals import collect_signals
from modelnative.sweeps import events
from modelnative.sweeps.executors import Executor, Outcome
from modelnative.sweeps.folder import Sweep, tail
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.results import read_row, write_results

QUIET_SECONDS = 2.0  # without an update, after which a trial is taken to verify or evaluate
PROGRESS_SECONDS = 0.5  # between two `SweepProgress` events


def run_trials(
    sweep: Sweep, executor: Executor, retries: int, require_in_place: Callable[[], None] = lambda: None
) -> Generator[events.SweepEvent, None, None]:
    """Run all trials that are not finished.

    Ctrl-C and SIGTERM stop the trials after their current update, with checkpoints; a second Ctrl-C kills them. They
    stop in the same way if the caller ends the iteration.

    Args:
        sweep: the sweep. The caller holds its lock.
        executor: runs the trials. The caller closes it.
        retries: how often a trial that crashes is retried.
        require_in_place: raises a `UserError` if the folder is gone or another one.

    Raises:
        UserError: the table cannot be written. The checkpoints of the trials remain.
    """
    trials = {trial.name: trial for trial in sweep.trials}
    rows = {trial.name: read_row(sweep, trial) for trial in sweep.trials}
    waiting = deque(trial for trial in sweep.trials if rows[trial.name].status != "finished")
    running: dict[str, float] = {}  # start time by name
    crashes: Counter[str] = Counter()
    durations: list[float] = []
    noted: set[str] = set()
    stopping = False

    with collect_signals() as received:
        try:
            write_results(sweep, list(rows.values()))
            yield events.SweepStarted(sweep, len(rows) - len(waiting), executor.jobs, executor.place)
            while running or (waiting and not stopping):
                if received and not stopping:
                    stopping = True
                    executor.stop()
                    yield events.SweepStopping(received[0])
                    continue
                while waiting and len(running) < executor.jobs and not stopping:
                    trial = waiting.popleft()
                    require_in_place()
                    executor.start(trial)
                    running[trial.name] = time.monotonic()
                    yield events.TrialStarted(trial, sweep.checkpoint(trial))
                ended = [(name, outcome, running.pop(name)) for name, outcome in executor.poll(PROGRESS_SECONDS)]
                require_in_place()
                for name in (*(name for name, *_ in ended), *running):
                    yield from _new_notes(sweep, trials[name], noted)
                for name, outcome, started in ended:
                    trial = trials[name]
                    if not outcome.refused and not sweep.finished(trial):
                        if stopping:
                            continue  # a later call continues it
                        crashes[name] += 1
                        reason = "stopped by a signal from outside" if outcome.stopped else outcome.reason
                        if crashes[name] <= retries:
                            waiting.appendleft(trial)  # trials with a checkpoint come before new ones
                            yield events.TrialCrashed(trial, reason, retries - crashes[name])
                            continue
                        outcome = Outcome(outcome.code, f"crashed {crashes[name]} times, last: {reason}")
                    row = rows[name] = read_row(sweep, trial, failure=outcome.reason)
                    durations.append(time.monotonic() - started)
                    write_results(sweep, list(rows.values()))
                    yield (
                        events.TrialFinished(trial, row) if row.status == "finished" else events.TrialFailed(trial, row)
                    )
                status = Counter(row.status for row in rows.values())
                newest = {name: _newest(sweep.run(trials[name])) for name in running}
                left = _seconds_left(durations, list(running.values()), len(waiting), executor.jobs)
                yield events.SweepProgress(len(rows), status["finished"], status["failed"], newest, left)
        except (Exception, GeneratorExit):  # of a callback, or of the disk
            executor.stop()  # the trials keep what they have done, as after a signal
            while running:
                for name, _ in executor.poll(PROGRESS_SECONDS):
                    del running[name]
            raise
        unfinished = sum(row.status == "unfinished" for row in rows.values())
        if stopping and unfinished:
            yield events.SweepInterrupted(sweep, received[0], unfinished)
        else:
            yield events.SweepFinished(sweep, tuple(rows.values()))


def _new_notes(sweep: Sweep, trial: Trial, noted: set[str]) -> Iterator[events.TaskNoted]:
    """The notes of a trial's task that are not in `noted`, where they are entered. Seeds differ in counts."""
    with contextlib.suppress(UserError):  # a file that is being written on a shared disk, or is damaged
        for note in sweep.notes(trial):
            kind = re.sub(r"\d+", "", note.replace(",", ""))
            if kind not in noted:
                noted.add(kind)
                yield events.TaskNoted(trial, note)


def _seconds_left(durations: list[float], started: list[float], waiting: int, jobs: int) -> float | None:
    """Estimated seconds to the end, from the mean duration of the trials so far; None without one."""
    if not durations:
        return None
    mean, now = sum(durations) / len(durations), time.monotonic()
    rest = [max(0.0, mean - (now - start)) for start in started]  # of each running trial
    workers = max(1, min(jobs, len(rest) + waiting))
    return max([*rest, 0.0, (sum(rest) + mean * waiting) / workers])


def _newest(run: Run) -> events.TrialProgress:
    """The last complete line of a run's metrics, and what the trial does since then."""
    for line in reversed(tail(run.metrics_path)[:-1]):  # after the last line break, a line may be incomplete
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            metrics = json.loads(line)
            quiet = time.time() - run.metrics_path.stat().st_mtime
            playing = "playing every problem" if quiet > QUIET_SECONDS + 3 * metrics["timing"]["seconds"] else ""
            phase = "writing its report" if run.result_path.exists() else playing
            return events.TrialProgress(metrics["update"], tuple(metrics["success"]), phase)
    return events.TrialProgress()
