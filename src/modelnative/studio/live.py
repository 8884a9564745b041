"""The view of a training in progress: live on a terminal, plain lines anywhere else."""

from __future__ import annotations

import re
import signal
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modelnative.runs.events import Interrupted, Verified
from modelnative.studio.tables import console as make_console
from modelnative.training.config import TrainConfig
from modelnative.training.events import Event, Started, Updated
from modelnative.training.metrics import Metrics

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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


class LiveView(View):
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
        self.update = 0
        self._speed: float | None = None
        self._solved_greedily = False  # the newest event is a verification without a failure

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Started):
            self.started = event
            self._print(headline(event))
            self._start()
        elif isinstance(event, Updated):
            self._updated(event)
        elif isinstance(event, Verified):
            self._verified(event)
        elif isinstance(event, Interrupted):
            self.signal, self.update = event.signal, event.update

    def interrupt_message(self) -> str:
        """What to print after an interruption."""
        if self.started is None:
            return "interrupted before the first update; nothing is lost"
        return f"stopped at update {self.update}; continue with: modelnative resume {self.started.run.path}"

    def _updated(self, event: Updated) -> None:
        assert self.started is not None, "Started is the first event"
        self.update = event.metrics.update
        now = event.metrics.timing.steps_per_second
        self._speed = now if self._speed is None else 0.9 * self._speed + 0.1 * now
        if self._solved_greedily:
            self._solved_greedily = False
            target = config_of(self.started).target_success
            self._print(f"sampled success has not reached {target:g} in every stage yet; training continues")
        if self.live is None:
            if self.update % LOG_UPDATES == 0:
                self._print(self._line(event))
        elif time.perf_counter() - self._drawn > REFRESH_SECONDS:
            self._draw(self._picture(event))

    def _verified(self, event: Verified) -> None:
        assert self.started is not None, "Started is the first event"
        config, evaluation = config_of(self.started), event.evaluation
        self._solved_greedily = evaluation.reaches(config.target_success)
        self._print(f"update {event.update:4}  greedy check: {evaluation.line()}  {clock(event.elapsed)}")
        if event.update >= config.updates:
            self._print("final evaluation: every problem is played with the best weights, greedily and sampled")

    def _line(self, event: Updated) -> str:
        metrics = event.metrics
        stages = "  ".join(self._stage(metrics, s) for s in range(len(metrics.success)))
        return f"update {metrics.update:4}  {stages}  {self._speed:,.0f} steps/s  {clock(event.elapsed)}"

    def _stage(self, metrics: Metrics, s: int) -> str:
        note = stage_note(metrics.stages[s])
        return f"{self._name(s)} {rate(metrics.success[s])}{f' ({note})' if note else ''}"

    def _name(self, s: int) -> str:
        assert self.started is not None, "Started is the first event"
        return self.started.stages[s]

    def _picture(self, event: Updated) -> Group:
        assert self.started is not None, "Started is the first event"
        metrics, config = event.metrics, config_of(self.started)
        stages = Table.grid(padding=(0, 1))
        for s, success in enumerate(metrics.success):
            bar = ProgressBar(total=1.0, completed=success or 0.0, width=24)
            note = Text(stage_note(metrics.stages[s]), "dim")
            stages.add_row(Text(self._name(s), "bold"), bar, rate(success), note)
        left = event.elapsed / metrics.update * (config.updates - metrics.update)
        if config.minutes:
            left = min(left, config.minutes * 60 - event.elapsed)
        done = ProgressBar(total=config.updates, completed=metrics.update, width=24)
        stages.add_row(Text("update", "bold"), done, f"{metrics.update}/{config.updates}")
        times = f"{clock(event.elapsed)} elapsed · at most {clock(max(0.0, left))} left"
        return Group(stages, Text(f"{self._speed:,.0f} steps/s · {times}", "dim"))


def config_of(event: Started) -> TrainConfig:
    """The configuration of a training, which may have no run folder."""
    source: Any = event.run or event.trainer
    config: TrainConfig = source.config
    return config


def headline(event: Started) -> str:
    """What is trained, in one line."""
    config = config_of(event)
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
