"""A training in progress in Jupyter: a table and curves that are redrawn in place. Needs the extra `notebook`."""

from __future__ import annotations

import time
from html import escape
from typing import Any

from modelnative.extras import optional
from modelnative.runs.events import Finished
from modelnative.studio.live import clock
from modelnative.training.events import Alarmed, Callback, Started, Updated

WIDTH, HEIGHT = 480, 120
POINTS = 240  # of a curve; a longer one loses every second point
COLORS = ("#2a9d8f", "#d17a00", "#d1495b", "#5b7fd1", "#8e6bbf")
DASHES = ("", "8 4", "2 3", "10 3 2 3", "5 5")


class NotebookView(Callback):
    """A live view of a training in a notebook: updates, success of every stage and its curve, alarms.

    Args:
        seconds: between redraws.

    Raises:
        UserError: IPython is not installed.

    Example:
        >>> import modelnative as mn
        >>> finished = mn.train("arithmetic", callbacks=[mn.NotebookView()])  # doctest: +SKIP
    """

    def __init__(self, seconds: float = 0.5) -> None:
        self.seconds = seconds
        self._shown: Any = optional("IPython.display", "notebook", "8.20", "10", package="ipython")
        self._forget(())

    def _forget(self, stages: tuple[str, ...]) -> None:
        self._stages = stages
        self._handle: Any = None
        self._drawn, self._stride, self._seen = 0.0, 1, 0
        self._curves: list[list[tuple[int, float | None]]] = [[] for _ in stages]
        self._last: Updated | None = None
        self._notes: list[str] = []

    def on_start(self, event: Started) -> None:
        self._forget(tuple(event.stages))

    def on_update(self, event: Updated) -> None:
        self._last, self._seen = event, self._seen + 1
        if self._seen % self._stride == 0:
            for curve, success in zip(self._curves, event.metrics.success, strict=True):
                curve.append((event.metrics.update, success))
            if len(self._curves[0]) > POINTS:
                self._curves, self._stride = [curve[::2] for curve in self._curves], 2 * self._stride
        if time.monotonic() - self._drawn >= self.seconds:
            self._draw()

    def on_alarm(self, event: Alarmed) -> None:
        self._notes = [*self._notes, f"update {event.update}: {event.alarm.text}"][-5:]

    def on_finish(self, event: Finished) -> None:
        self._notes.append(event.evaluation.line())
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        picture = self._shown.HTML(self.html())
        if self._handle is None:
            self._handle = self._shown.display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def html(self) -> str:
        """What is shown now; all texts are escaped."""
        if self._last is None:
            return ""
        metrics = self._last.metrics
        rows = []
        for i, (name, success, where) in enumerate(zip(self._stages, metrics.success, metrics.stages, strict=True)):
            color, share = COLORS[i % len(COLORS)], "–" if success is None else f"{success:.3f}"
            mark = f'<svg width="28" height="8">{_path("M0 4H28", i)}</svg>'
            bar = f'<progress max="1" value="{success or 0:.3f}" style="accent-color:{color}"></progress>'
            cells = (mark, escape(name), bar, share, escape(str(where)))
            rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
        speed = f"{metrics.timing.steps_per_second:,.0f} steps/s"
        line = f"update {metrics.update:,} · {clock(self._last.elapsed)} · {speed} · entropy {metrics.entropy:.3f}"
        notes = "".join(f"<p>{escape(note)}</p>" for note in self._notes)
        return f"<p><strong>{line}</strong></p><table>{''.join(rows)}</table>{self._picture()}{notes}"

    def _picture(self) -> str:
        last = max((curve[-1][0] for curve in self._curves if curve), default=1)
        paths = []
        for i, curve in enumerate(self._curves):
            points = [(WIDTH * update / last, HEIGHT - 4 - (HEIGHT - 8) * y) for update, y in curve if y is not None]
            if points:
                paths.append(_path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), i))
        label = "success of every stage over the updates"
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{label}">'
            f'<path d="M0 {HEIGHT - 4}H{WIDTH}M0 4H{WIDTH}" stroke="#8a949b" stroke-width="0.5"/>{"".join(paths)}</svg>'
        )


def _path(d: str, i: int) -> str:
    """A line that differs from the others in more than its color."""
    color, dashes = COLORS[i % len(COLORS)], DASHES[i % len(DASHES)]
    return f'<path d="{d}" fill="none" stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}"/>'
