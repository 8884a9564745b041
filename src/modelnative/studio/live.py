"""The view of a training in progress: live on a terminal, plain lines anywhere else."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modelnative.runs.events import Finished, Interrupted, Verified
from modelnative.studio.tables import console as make_console
from modelnative.training.config import TrainConfig
from modelnative.training.events import Alarmed, Callback, Event, Searched, Started, Updated

LOG_UPDATES = 10  # updates between plain lines
REFRESH_SECONDS = 0.1  # between redraws of the live view
HINT = re.compile(r"(\d+)/(\d+) free")  # how the curriculum reports a stage with hints


class View:
    """A context that prints lines and may redraw a live display below them. On exit it restores the terminal.

    Args:
        console: where to print; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console()
        self.live: Live | None = None
        self.signal = int(signal.SIGINT)
        self._drawn = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Keep the last picture on the screen and restore the terminal."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _start(self) -> None:
        if self.console.is_interactive:
            self.live = Live(console=self.console, auto_refresh=False)
            self.live.start()

    def _print(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)  # one event is one line of a log

    def _draw(self, picture: RenderableType) -> None:
        if self.live is not None:
            self._drawn = time.perf_counter()
            self.live.update(picture, refresh=True)


class LiveView(View, Callback):
    """A callback that shows the progress of one training. Use it as a context manager, which restores the terminal.

    Args:
        console: where to print; standard output by default.

    Example:
        >>> import modelnative as mn
        >>> with LiveView() as view:  # doctest: +SKIP
        ...     mn.train(callbacks=[view])
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self.started: Started | None = None
        self.config = TrainConfig()
        self.update = 0
        self._told: list[str] = []
        self._alarmed: set[str] = set()
        self._speed: float | None = None
        self._solved_greedily = False  # the newest event is a verification without a failure

    def on_start(self, event: Started) -> None:
        source: Any = event.run or event.trainer  # a training may have no run folder
        self.started, self.config = event, source.config
        self._print(headline(event, self.config))
        for note in event.notes:
            self._print(note)
        self._tell(event)
        self._start()

    def on_finish(self, event: Finished) -> None:
        self._tell(event)

    def on_interrupt(self, event: Interrupted) -> None:
        self.signal, self.update = event.signal, event.update

    def _tell(self, event: Event) -> None:
        """Print what the task has to say to its author, unless it was printed already."""
        notes = [] if event.trainer is None else event.trainer.task.notes()
        for note in (note for note in notes if note not in self._told):
            self._print(f"note: {note}")
        self._told = notes

    def interrupt_message(self) -> str:
        """What to print after an interruption."""
        if self.started is None:
            return "interrupted before the first update; nothing is lost"
        return f"stopped at update {self.update}; continue with: {self.started.run.command('resume')}"

    def on_search(self, event: Searched) -> None:
        first, more = (*event.procedures, "nothing yet")[0], len(event.procedures) - 1
        state = f"{event.stage}: {first}" + (f" and {more} more" if more > 0 else "")
        if event.ended and event.found:
            self._print(f"search found {state}  ({event.actions:,} actions)")
        elif event.ended:
            best = f"the best found solves {event.solved:.3f} of the problems: {state.partition(': ')[2]}"
            self._print(
                f"search found no procedure for {event.stage} within its budget ({event.actions:,} actions, "
                f"curricula.search_budget); {best if event.procedures else 'nothing found solves a problem'}"
            )
            self._print(f"{event.stage} and the stages after it, if any, are trained without hints")
        elif self.live is not None and time.perf_counter() - self._drawn > REFRESH_SECONDS:
            self._draw(Text(f"searching {state}  solves {event.solved:.3f} · {event.actions:,} actions", "dim"))

    def on_update(self, event: Updated) -> None:
        self.update = event.metrics.update
        now = event.metrics.timing.steps_per_second
        self._speed = now if self._speed is None else 0.9 * self._speed + 0.1 * now
        if self._solved_greedily:
            self._solved_greedily = False
            target = self.config.target_success
            self._print(f"sampled success has not reached {target:g} in every stage yet; training continues")
        if self.live is None:
            if self.update % LOG_UPDATES == 0:
                self._print(self._line(event))
        elif time.perf_counter() - self._drawn > REFRESH_SECONDS:
            self._draw(self._picture(event))

    def on_alarm(self, event: Alarmed) -> None:
        if event.alarm.check not in self._alarmed:  # the same fault is found again and again
            self._alarmed.add(event.alarm.check)
            self._print(f"alarm at update {event.update}: {event.alarm.text}")

    def on_verify(self, event: Verified) -> None:
        self._solved_greedily = event.evaluation.reaches(self.config.target_success)
        self._print(f"update {event.update:4}  greedy check: {event.evaluation.line()}  {clock(event.elapsed)}")
        if event.update >= self.config.updates:
            self._print("final evaluation: the best weights play the problems of all stages, greedily and sampled")

    def _line(self, event: Updated) -> str:
        stages = [
            f"{name} {rate(success)}{f' ({note})' if note else ''}" for name, success, note in self._stages(event)
        ]
        speed = f"{self._speed:,.0f} steps/s"
        return "  ".join([f"update {self.update:4}", *stages, speed, clock(event.elapsed)])

    def _stages(self, event: Updated) -> Iterator[tuple[str, float | None, str]]:
        """Name, success and note of each stage."""
        assert self.started is not None, "Started is the first event"
        notes = map(stage_note, event.metrics.stages)
        return zip(self.started.stages, event.metrics.success, notes, strict=True)

    def _picture(self, event: Updated) -> Group:
        metrics, config = event.metrics, self.config
        stages = Table.grid(padding=(0, 1))
        for name, success, note in self._stages(event):
            bar = ProgressBar(total=1.0, completed=success or 0.0, width=24)
            stages.add_row(Text(name, "bold"), bar, rate(success), Text(note, "dim"))
        left = event.elapsed / metrics.update * (config.updates - metrics.update)
        if config.minutes:
            left = min(left, config.minutes * 60 - event.elapsed)
        done = ProgressBar(total=config.updates, completed=metrics.update, width=24)
        stages.add_row(Text("update", "bold"), done, f"{metrics.update}/{config.updates}")
        times = f"{clock(event.elapsed)} elapsed · at most {clock(max(0.0, left))} left"
        return Group(stages, Text(f"{self._speed:,.0f} steps/s · {times}", "dim"))


def headline(event: Started, config: TrainConfig) -> str:
    """What is trained, in one line."""
    folder = f" → {event.run.path}" if event.run else ""
    continued = f", from update {event.update}" if event.update else ""
    return (
        f"{config.task}: {config.core} with {event.parameters:,} parameters, {config.algorithm}, curriculum "
        f"{config.curriculum}, seed {config.seed}{continued}{folder}"
    )


def stage_note(state: str) -> str:
    """The state of a stage, as the curriculum reports it, in words.

    Example:
        >>> stage_note("11/12 free")
        'hint: 1 of 12 tokens'
    """
    match = HINT.fullmatch(state)
    return f"hint: {int(match[2]) - int(match[1])} of {match[2]} tokens" if match else state


def rate(value: float | None) -> str:
    """A success rate in five characters."""
    return "  –  " if value is None else f"{value:.3f}"


def clock(seconds: float) -> str:
    """A duration.

    Example:
        >>> clock(7.25), clock(83), clock(3700)
        ('7.2 s', '1:23', '1:01:40')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
