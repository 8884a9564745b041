"""A plot of the trials of a sweep: one dot for each seed, one interval for each combination of fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelnative.runs.files import write
from modelnative.studio.figures import figures, saved
from modelnative.sweeps.results import MIN_SEEDS, Cell

DOT, BAR = "#5b7fd1", "#d1495b"
DOT_OFFSET = 0.24  # greatest distance of a dot from the line of its combination


def write_comparison(folder: Path, title: str, cells: Sequence[Cell]) -> list[Path]:
    """Draw `comparison.svg` and `comparison.png`, and return where they are.

    Raises:
        UserError: a file cannot be written.
    """
    paths = [folder / f"comparison.{kind}" for kind in ("svg", "png")]
    for path in paths:
        write(path, draw(title, cells, path.suffix[1:]))
    return paths


def draw(title: str, cells: Sequence[Cell], kind: str) -> bytes:
    """The plot: solved, success and seconds of training, one line for each combination."""
    with figures({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}) as figure_class:
        figure = figure_class(figsize=(11, 1.6 + 0.38 * len(cells)), layout="constrained", dpi=120)
        solved, success, seconds = figure.subplots(1, 3, sharey=True)
        for place, cell in enumerate(cells):
            _dots(success, place, [row.success for row in cell.rows if row.success is not None])
            _dots(seconds, place, cell.seconds)
            _interval(solved, place, cell.solved / cell.trials, cell.interval)
            _interval(seconds, place, cell.median, cell.median_interval)
            solved.annotate(f"{cell.solved} of {cell.trials}", (1.03, place), va="center", annotation_clip=False)
        solved.set_yticks(range(len(cells)), [cell.label for cell in cells])
        solved.set_ylim(len(cells) - 0.5, -0.5)
        for axes, right, heading in (
            (solved, 1.02, "solved every problem\n(share of trials, 95% Wilson)"),
            (success, 1.02, "success over all problems\n(one dot per seed)"),
            (seconds, None, "seconds of training\n(one dot per seed; median, 95% bootstrap)"),
        ):
            axes.set_xlim(0 if right is None else -0.02, right)
            axes.set_title(heading, fontsize=9)
            axes.grid(alpha=0.2, linewidth=0.6)
        few = min((cell.trials for cell in cells), default=MIN_SEEDS)
        warning = (
            f" – {few} seed{'s' * (few != 1)} in the smallest group, too few for a claim" if few < MIN_SEEDS else ""
        )
        figure.suptitle(f"{title}{warning}", fontsize=10)
        return saved(figure, kind, dpi=120)


def _interval(axes: Any, place: int, middle: float | None, ends: tuple[float, float] | None) -> None:
    """Draw an interval and the value in it, as far as they are known."""
    if ends is not None:
        axes.plot(ends, [place, place], color=BAR, linewidth=2)
    if middle is not None:
        axes.plot([middle], [place], "|", color=BAR, markersize=12, markeredgewidth=2)


def _dots(axes: Any, place: int, values: Sequence[float]) -> None:
    """Draw one dot for each value; equal values are drawn next to each other."""
    count = len(values)
    heights = [place + (DOT_OFFSET * (2 * i / (count - 1) - 1) if count > 1 else 0.0) for i in range(count)]
    axes.plot(values, heights, "o", color=DOT, alpha=0.7, markersize=4, markeredgewidth=0)
