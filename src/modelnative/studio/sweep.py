"""Following a sweep, and its trials side by side: a live view on a terminal, plain lines anywhere else."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modelnative.evidence.evaluate import floor
from modelnative.studio.live import clock, rate
from modelnative.studio.tables import console as make_console
from modelnative.studio.tables import table
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.results import ENOUGH, Cell, Row, cells, text
from modelnative.sweeps.scheduler import (
    Event,
    Pulse,
    SweepBegun,
    SweepEnded,
    SweepInterrupted,
    SweepStopping,
    TrialBegun,
    TrialDied,
    TrialEnded,
)

SHOWN = 8  # running trials that the picture shows; a cluster may have hundreds


class SweepView:
    """Give it to `modelnative.sweep` as `watch`; use it as a context, so that the terminal is restored.

    Args:
        console: where to show; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console()
        self.live: Live | None = None
        self.begun: SweepBegun | None = None
        self.signal = int(signal.SIGINT)
        self.unfinished = 0
        self._ended = 0
        self._left: float | None = None

    def __enter__(self) -> SweepView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the last picture and give the terminal back."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def __call__(self, event: Event) -> None:
        """Show what happened."""
        if isinstance(event, SweepBegun):
            self.begun, self._ended = event, event.done
            self._say(headline(event))
            if self.console.is_terminal and not self.console.is_dumb_terminal:
                self.live = Live(console=self.console, auto_refresh=False)
                self.live.start()
        elif isinstance(event, TrialBegun):
            if self.live is None or event.update:
                self._say(f"start    {event.trial.name}{f', from update {event.update}' if event.update else ''}")
        elif isinstance(event, TrialDied):
            tries = f"{event.left} tries left" if event.left != 1 else "1 try left"
            self._say(f"died     {event.trial.name}: {event.reason}; it is tried again ({tries} after that)")
        elif isinstance(event, TrialEnded):
            self._ended += 1
            self._say(f"{event.row.status:<8} {event.trial.name}: {self._outcome(event.row)}")
        elif isinstance(event, Pulse):
            self._left = event.left
            if self.live is not None:
                self.live.update(picture(event), refresh=True)
        elif isinstance(event, SweepStopping):
            self.signal = event.signal
            self._say("stopping: each trial finishes its update and writes a checkpoint; Ctrl-C again ends them now")
        elif isinstance(event, SweepInterrupted):
            self.signal, self.unfinished = event.signal, event.unfinished
        elif isinstance(event, SweepEnded):
            self.close()

    def farewell(self) -> str:
        """What to say after an interruption."""
        if self.begun is None:
            return "interrupted before the first trial; nothing is lost"
        again = f"continue with: modelnative sweep --resume {self.begun.sweep.path}"
        if not self.unfinished:
            return f"ended at once; each trial is at its newest checkpoint; {again}"
        return f"stopped with {self.unfinished} of {len(self.begun.sweep.trials)} trials unfinished; {again}"

    def _outcome(self, row: Row) -> str:
        assert self.begun is not None, "SweepBegun is the first event"
        total = len(self.begun.sweep.trials)
        left = f", about {clock(self._left)} left" if self._left is not None and self._ended < total else ""
        return f"{outcome(row)}  [{self._ended} of {total}{left}]"

    def _say(self, line: str) -> None:
        # Not wrapped: a line in a log is one line.
        self.console.print(Text(line), soft_wrap=True)


def headline(event: SweepBegun) -> str:
    """What is about to be done, in one line."""
    sweep = event.sweep
    done = f", {event.done} of them finished already" if event.done else ""
    return f"{sweep.spec.name}: {len(sweep.trials)} trials{done}, {event.jobs} at a time, {event.place} → {sweep.path}"


def outcome(row: Row) -> str:
    """How a trial ended, in a few words."""
    if row.success is None:
        return row.reason
    stages = " ".join(f"{n.partition('.')[2]}={floor(r)}" for n, r in row.rates.items() if n.startswith("greedy."))
    return f"{stages}, {'solved' if row.solved else 'not solved'}, {row.costs['seconds']:.1f} s"


def picture(pulse: Pulse) -> Group:
    """How far the sweep is."""
    ended = pulse.finished + pulse.failed
    trials = Table.grid(padding=(0, 1))
    for name, (update, success) in list(pulse.running.items())[:SHOWN]:
        trials.add_row(Text(name), Text(f"update {update}" if update else "starting", "dim"), rate(success))
    if len(pulse.running) > SHOWN:
        trials.add_row(Text(f"… and {len(pulse.running) - SHOWN} more", "dim"))
    bar = Table.grid(padding=(0, 1))
    left = f"about {clock(pulse.left)} left" if pulse.left is not None else "time left: known after the first trial"
    counts = f"{pulse.finished} finished · {len(pulse.running)} running · {pulse.failed} failed · {left}"
    bar.add_row(ProgressBar(total=pulse.total, completed=ended, width=24), f"{ended}/{pulse.total}", Text(counts))
    return Group(trials, bar)


# Before


def plan_table(sweep: Sweep) -> Table:
    """Every trial, and what a call would do with it now."""
    fields = list(dict.fromkeys(name for trial in sweep.trials for name in trial.fields))
    shown = table("trial", *fields, "now")
    for trial in sweep.trials:
        values = (text(trial.fields[name]) for name in fields)
        shown.add_row(trial.name.rpartition("-")[2], *values, standing(sweep, trial))
    return shown


def standing(sweep: Sweep, trial: Trial) -> str:
    """Where a trial stands."""
    if sweep.finished(trial):
        return "finished"
    paths = sweep.run(trial).checkpoints()
    return f"continues from update {int(paths[-1].stem)}" if paths else "starts"


# After


def comparison_table(grouped: Sequence[Cell]) -> Table:
    """A row for all seeds of a combination."""
    fields = list(dict.fromkeys(name for cell in grouped for name in cell.fields))
    numbers = ("solved", "95% (Wilson)", "median seconds", "95% (bootstrap)", "range")
    shown = table(*fields, *numbers, "", right=numbers)
    for cell in grouped:
        low, high = cell.interval
        failed = sum(row.status == "failed" for row in cell.rows)
        shown.add_row(
            *(text(cell.fields[name]) for name in fields),
            f"{cell.solved} of {cell.trials}",
            f"{low:.2f} to {high:.2f}",
            "–" if cell.median is None else f"{'≥ ' if cell.censored else ''}{cell.median:.1f}",
            "–" if cell.median_interval is None else "{:.1f} to {:.1f}".format(*cell.median_interval),
            f"{min(cell.seconds):.1f} to {max(cell.seconds):.1f}" if cell.seconds else "–",
            f"{failed} failed" if failed else "",
        )
    return shown


def notes(grouped: Sequence[Cell]) -> list[str]:
    """What a reader of the comparison must know."""
    said = [
        "solved: every problem of every stage, held-out ones included, greedily. A failed trial counts as unsolved."
    ]
    if any(cell.censored for cell in grouped):
        said.append("≥: with trials that stopped unsolved because their budget was spent; solving would take longer.")
    least = min((cell.trials for cell in grouped), default=ENOUGH)
    if least < ENOUGH:
        seeds = "1 seed" if least == 1 else f"{least} seeds"
        said.append(f"{seeds} in the smallest group: too few for a claim; say seeds = {ENOUGH}.")
    return said


def farewell(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """The last lines of a sweep."""
    failed = [row for row in rows if row.status == "failed"]
    lines = [f"  results     {sweep.results_path}"]
    if cells(rows):
        lines.append(f"  comparison  {sweep.path / 'comparison.svg'} and .png")
    lines.append(f"  runs        {sweep.path / 'trials'}")
    if failed:
        lines += [
            "",
            f"{len(failed)} of {len(rows)} trials failed; the reasons are in the table, all that they said in "
            f"{sweep.path / 'logs'}.",
            f"To try them again: modelnative sweep --resume {sweep.path}",
        ]
    return lines
