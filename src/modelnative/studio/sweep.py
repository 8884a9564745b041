"""The view of a sweep in progress, and its results: live on a terminal, plain lines anywhere else."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modelnative.evidence.evaluate import floor
from modelnative.studio.live import View, clock, rate
from modelnative.studio.tables import table
from modelnative.sweeps import events
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import MIN_SEEDS, Cell, Row, cells, text

MAX_RUNNING = 8  # running trials that are shown; a cluster may have hundreds
LOG_SECONDS = 10.0  # between plain lines


class SweepView(View):
    """A callback that shows the progress of a sweep. Use it as a context manager, which restores the terminal.

    Args:
        console: where to print; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self.started: events.SweepStarted | None = None
        self.unfinished = 0
        self._ended = 0
        self._seconds_left: float | None = None

    def __call__(self, event: events.SweepEvent) -> None:
        """Show an event."""
        if isinstance(event, events.SweepStarted):
            self.started, self._ended, self._drawn = event, event.finished, time.perf_counter()
            self._print(headline(event))
            self._start()
        elif isinstance(event, events.TrialStarted):
            if self.live is None or event.update:
                self._print(f"start    {event.trial.name}{f', from update {event.update}' if event.update else ''}")
        elif isinstance(event, events.TaskNoted):
            self._print(f"note: {event.note}")
        elif isinstance(event, events.TrialCrashed):
            retries = f"{event.retries_left} retries left" if event.retries_left != 1 else "1 retry left"
            self._print(f"crashed  {event.trial.name}: {event.reason}; it is retried ({retries} after that)")
        elif isinstance(event, (events.TrialFinished, events.TrialFailed)):
            self._ended += 1
            self._print(f"{event.row.status:<8} {event.trial.name}: {outcome(event.row)}  {self._counts()}")
        elif isinstance(event, events.SweepProgress):
            self._progress(event)
        elif isinstance(event, events.SweepStopping):
            self.signal = event.signal
            self._print("stopping: each trial finishes its update and writes a checkpoint; Ctrl-C again kills them")
        elif isinstance(event, events.SweepInterrupted):
            self.signal, self.unfinished = event.signal, event.unfinished
        elif isinstance(event, events.SweepFinished):
            self.close()

    def interrupt_message(self) -> str:
        """What to print after an interruption."""
        if self.started is None:
            return "interrupted before the first trial; nothing is lost"
        sweep = self.started.sweep
        command = f"continue with: {sweep.resume_command}"
        if not self.unfinished:
            return f"killed; each trial keeps its newest checkpoint; {command}"
        return f"stopped with {self.unfinished} of {len(sweep.trials)} trials unfinished; {command}"

    def _progress(self, event: events.SweepProgress) -> None:
        self._seconds_left = event.seconds_left
        if self.live is not None:
            self._draw(picture(event))
        elif event.running and time.perf_counter() - self._drawn >= LOG_SECONDS:
            self._drawn = time.perf_counter()
            running = [f"{name} {newest(trial)}" for name, trial in event.running.items()]
            more = [f"and {len(running) - MAX_RUNNING} more"] if len(running) > MAX_RUNNING else []
            self._print(f"running  {'; '.join([*running[:MAX_RUNNING], *more])}")
        if event.finished + event.failed == event.total:
            self._print("all trials have ended; writing the table and the report of the sweep")

    def _counts(self) -> str:
        assert self.started is not None, "SweepStarted is the first event"
        total, seconds = len(self.started.sweep.trials), self._seconds_left
        left = f", about {clock(seconds)} left" if seconds is not None and self._ended < total else ""
        return f"[{self._ended} of {total}{left}]"


def headline(event: events.SweepStarted) -> str:
    """What is run, in one line."""
    sweep = event.sweep
    done = f", {event.finished} of them finished already" if event.finished else ""
    return f"{sweep.spec.name}: {len(sweep.trials)} trials{done}, {event.jobs} at a time, {event.place} → {sweep.path}"


def outcome(row: Row) -> str:
    """How a trial ended, in a few words."""
    if row.success is None:
        return row.reason
    stages = " ".join(f"{stage}={floor(rate)}" for stage, rate in row.greedy.items())
    return f"{stages}, {verdict(row)}, {row.costs['seconds']:.1f} s"


def newest(trial: events.TrialProgress) -> str:
    """The newest update of a running trial, and the success of each stage."""
    if not trial.update:
        return "starting"
    rates = " ".join(rate(value).strip() for value in trial.success)
    return f"update {trial.update}, success {rates}{f', {trial.phase}' if trial.phase else ''}"


def picture(progress: events.SweepProgress) -> Group:
    """The progress of a sweep."""
    ended = progress.finished + progress.failed
    trials = Table.grid(padding=(0, 1))
    for name, trial in list(progress.running.items())[:MAX_RUNNING]:
        trials.add_row(Text(name), Text(newest(trial), "dim", no_wrap=True, overflow="ellipsis"))
    if len(progress.running) > MAX_RUNNING:
        trials.add_row(Text(f"… and {len(progress.running) - MAX_RUNNING} more", "dim"))
    bar = Table.grid(padding=(0, 1))
    seconds = progress.seconds_left
    left = f"about {clock(seconds)} left" if seconds is not None else "time left: known after the first trial"
    counts = f"{progress.finished} finished · {len(progress.running)} running · {progress.failed} failed · {left}"
    bar.add_row(ProgressBar(total=progress.total, completed=ended, width=24), f"{ended}/{progress.total}", Text(counts))
    return Group(trials, bar)


# Before


def plan_table(sweep: Sweep) -> Table:
    """Every trial, and what a call would do with it."""
    fields = list(dict.fromkeys(name for trial in sweep.trials for name in trial.fields))
    shown = table("trial", *fields, "now")
    for trial in sweep.trials:
        values = (text(trial.fields[name]) for name in fields)
        update = sweep.checkpoint(trial)
        step = "finished" if sweep.finished(trial) else f"continues from update {update}" if update else "starts"
        shown.add_row(trial.name.rpartition("-")[2], *values, step)
    return shown


# After


def comparison_table(grouped: Sequence[Cell]) -> Table:
    """One row for all seeds of a combination of fields."""
    fields = list(dict.fromkeys(name for cell in grouped for name in cell.fields))
    numbers = ("solved", "95% (Wilson)", "median success", "median seconds", "95% (bootstrap)", "range")
    shown = table(*fields, *numbers, "", right=numbers)
    for cell in grouped:
        low, high = cell.interval
        failed = sum(row.status == "failed" for row in cell.rows)
        shown.add_row(
            *(text(cell.fields[name]) for name in fields),
            f"{cell.solved} of {cell.trials}",
            f"{low:.2f} to {high:.2f}",
            "–" if cell.success is None else floor(cell.success),
            "–" if cell.median is None else f"{'≥ ' if cell.censored else ''}{cell.median:.1f}",
            "–" if cell.median_interval is None else "{:.1f} to {:.1f}".format(*cell.median_interval),
            f"{min(cell.seconds):.1f} to {max(cell.seconds):.1f}" if cell.seconds else "–",
            f"{failed} failed" if failed else "",
        )
    return shown


def seeds_table(rows: Sequence[Row]) -> Table:
    """One row for each seed of a sweep over seeds."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row.greedy))
    numbers = ("seed", "updates", "seconds", *stages)
    shown = table("seed", "verdict", *numbers[1:], right=numbers)
    for row in rows:
        rates = (floor(row.greedy[stage]) if row.greedy else "–" for stage in stages)
        costs = (f"{row.costs['updates']}", f"{row.costs['seconds']:.1f}") if row.costs else ("–", "–")
        shown.add_row(str(row.seed), verdict(row), *costs, *rates)
    return shown


def verdict(row: Row) -> str:
    """The verdict on a trial: solved, not solved, or why it has no result."""
    if row.solved is None:
        return f"{row.status}: {row.reason}" if row.reason else row.status
    return "solved" if row.solved else "not solved"


def seeds_summary(rows: Sequence[Row]) -> str:
    """All seeds in one sentence. A seed without a result counts as unsolved."""
    finished = [row for row in rows if row.costs]
    failed = sum(row.status == "failed" for row in rows)
    line = f"{sum(row.solved is True for row in rows)} of {len(rows)} seeds solved every problem"
    if failed:
        line += f", {failed} failed"
    if finished:
        updates, seconds = (statistics.median(row.costs[name] for row in finished) for name in ("updates", "seconds"))
        line += f"; median {updates:g} updates, {seconds:.1f} s"
    return line


def notes(grouped: Sequence[Cell]) -> list[str]:
    """How to read the comparison."""
    lines = [
        "solved: every problem of every stage, held-out ones included, greedily. A failed trial counts as unsolved."
    ]
    if any(cell.censored for cell in grouped):
        lines.append("≥: some trials used up their budget without solving every problem; solving would take longer.")
    fewest = min((cell.trials for cell in grouped), default=MIN_SEEDS)
    if fewest < MIN_SEEDS:
        seeds = "1 seed" if fewest == 1 else f"{fewest} seeds"
        lines.append(f"{seeds} in the smallest group: too few for a claim; use seeds = {MIN_SEEDS}.")
    return lines


def final_report(sweep: Sweep, rows: Sequence[Row]) -> Iterator[RenderableType]:
    """What to print at the end of a sweep."""
    grouped = cells(rows)
    if sweep.seeds_only:
        yield seeds_table(rows)
        yield seeds_summary(rows)
    elif grouped:
        yield comparison_table(grouped)
        yield from notes(grouped)
    yield from closing_lines(sweep, rows)


def closing_lines(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """The last lines of a sweep: where its files are, and what failed."""
    failed = [row for row in rows if row.status == "failed"]
    lines = [f"  results     {sweep.results_path}"]
    if sweep.seeds_only:
        lines.append(f"  report      {sweep.report_path}")
    elif cells(rows):
        lines.append(f"  comparison  {sweep.path / 'comparison.svg'} and .png")
    lines.append(f"  runs        {sweep.path / 'trials'}")
    if failed:
        lines += [
            "",
            f"{len(failed)} of {len(rows)} trials failed. The table has the reasons; {sweep.path / 'logs'} has the "
            "whole output.",
            f"To retry them: {sweep.resume_command}",
        ]
    return lines
