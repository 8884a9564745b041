"""Following a training: a live view on a terminal, plain lines anywhere else."""

from __future__ import annotations

import signal
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modelnative.runs.training import Event, Interrupted, Started, Updated, Verified
from modelnative.studio.tables import console as make_console
from modelnative.training.trainer import Metrics

EVERY = 10  # updates between plain lines
REFRESH = 0.1  # seconds between pictures


class LiveView:
    """Give it to `modelnative.train` as `watch`; use it as a context, so that the terminal is restored.

    Args:
        console: where to show; standard output by default.

    Example:
        >>> import modelnative as mn
        >>> with LiveView() as view:  # doctest: +SKIP
        ...     mn.train(watch=view)
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console()
        self.live: Live | None = None
        self.started: Started | None = None
        self.verified: Verified | None = None
        self.signal = int(signal.SIGINT)
        self.update = 0
        self._speed: float | None = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
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
        if isinstance(event, Started):
            self.started = event
            self._say(headline(event))
            if self.console.is_terminal and not self.console.is_dumb_terminal:
                self.live = Live(console=self.console, auto_refresh=False)
                self.live.start()
        elif isinstance(event, Updated):
            self.update = event.metrics.update
            now = event.metrics.timing.steps_per_second
            self._speed = now if self._speed is None else 0.9 * self._speed + 0.1 * now
            if self.live is None:
                if self.update % EVERY == 0:
                    self._say(self._line(event))
            elif time.perf_counter() - self._drawn > REFRESH:
                self._drawn = time.perf_counter()
                self.live.update(self._picture(event), refresh=True)
        elif isinstance(event, Verified):
            self.verified = event
            self._say(f"update {event.update:4}  verified: {event.evaluation.line()}  {clock(event.elapsed)}")
            if self.started and (event.evaluation.perfect or event.update >= self.started.run.config.updates):
                self._say("playing every problem with the best weights, greedily and sampled, for the report")
        elif isinstance(event, Interrupted):
            self.signal, self.update = event.signal, event.update

    def farewell(self) -> str:
        """What to say after an interruption."""
        if self.started is None:
            return "interrupted before the first update; nothing is lost"
        return f"stopped at update {self.update}; continue with: modelnative resume {self.started.run.path}"

    def _say(self, line: str) -> None:
        # Not wrapped: a line in a log is one line.
        self.console.print(Text(line), soft_wrap=True)

    def _line(self, event: Updated) -> str:
        metrics = event.metrics
        stages = "  ".join(self._stage(metrics, s) for s in range(len(metrics.success)))
        return f"update {metrics.update:4}  {stages}  {self._speed:,.0f} steps/s  {clock(event.elapsed)}"

    def _stage(self, metrics: Metrics, s: int) -> str:
        note = f" ({metrics.stages[s]})" if metrics.stages[s] else ""
        return f"{self._name(s)} {rate(metrics.success[s])}{note}"

    def _name(self, s: int) -> str:
        assert self.started is not None, "Started is the first event"
        return self.started.stages[s]

    def _picture(self, event: Updated) -> Group:
        assert self.started is not None, "Started is the first event"
        metrics, config = event.metrics, self.started.run.config
        stages = Table.grid(padding=(0, 1))
        for s, success in enumerate(metrics.success):
            bar = ProgressBar(total=1.0, completed=success or 0.0, width=24)
            stages.add_row(Text(self._name(s), "bold"), bar, rate(success), Text(metrics.stages[s], "dim"))
        left = event.elapsed / metrics.update * (config.updates - metrics.update)
        if config.minutes:
            left = min(left, config.minutes * 60 - event.elapsed)
        done = ProgressBar(total=config.updates, completed=metrics.update, width=24)
        stages.add_row(Text("update", "bold"), done, f"{metrics.update}/{config.updates}")
        pace = f"{self._speed:,.0f} steps/s · {clock(event.elapsed)} gone · at most {clock(max(0.0, left))} to go"
        return Group(stages, Text(pace, "dim"))


class TeamView(LiveView):
    """The same for several seeds: a line of all of them every few updates, and one for each verification."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self.newest: dict[int, Updated] = {}

    def tell(self, seed: int, event: Event) -> None:
        """Show what happened to a seed."""
        if isinstance(event, Started):
            self.started = self.started or event
            self._say(headline(event))
        elif isinstance(event, Updated):
            self.newest[seed] = event
            if seed == max(self.newest) and event.metrics.update % EVERY == 0:
                self._say(self._together(event))
        elif isinstance(event, Verified):
            self._say(
                f"seed {seed:3}  update {event.update:4}  verified: {event.evaluation.line()}  {clock(event.elapsed)}"
            )
        elif isinstance(event, Interrupted):
            self.signal, self.update = event.signal, event.update

    def _together(self, event: Updated) -> str:
        assert self.started is not None, "Started is the first event"
        now = [other.metrics for other in self.newest.values() if other.metrics.update == event.metrics.update]
        stages = []
        for s, stage in enumerate(self.started.stages):
            known = sorted(value for metrics in now if (value := metrics.success[s]) is not None)
            stages.append(f"{stage} {rate(known[0])}–{rate(known[-1])}" if known else f"{stage}   –  ")
        return f"update {event.metrics.update:4}  {len(now)} seeds  {'  '.join(stages)}  {clock(event.elapsed)}"

    def farewell(self) -> str:
        if self.started is None:
            return "interrupted before the first update; nothing is lost"
        return f"stopped at update {self.update}; continue with: modelnative resume {self.started.run.path.parent}"


def headline(event: Started) -> str:
    """What is being trained, in one line."""
    config = event.run.config
    again = f", from update {event.update}" if event.update else ""
    return (
        f"{config.task}: {config.core} with {event.parameters:,} parameters, {config.algorithm}, curriculum "
        f"{config.curriculum}, seed {config.seed}{again} → {event.run.path}"
    )


def rate(value: float | None) -> str:
    """A success rate in five characters."""
    return "  –  " if value is None else f"{value:.3f}"


def clock(seconds: float) -> str:
    """Seconds as a person reads them.

    Example:
        >>> clock(7.25), clock(83), clock(3700)
        ('7.2 s', '1:23', '1:01:40')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
