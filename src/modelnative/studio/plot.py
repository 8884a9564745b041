"""Pictures of a run or a sweep: learning curves, what is carried where, certificates, seeds, comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelnative.errors import UserError, choose, in_words, require, require_path
from modelnative.evidence.certificate import AGENTS, Certificate
from modelnative.runs.files import read_json, write
from modelnative.runs.run import Run
from modelnative.studio import sweep_plot
from modelnative.studio.figures import KINDS, figures, saved
from modelnative.studio.inspection import sections
from modelnative.studio.report import PART_ERRORS, STAGE_COLORS, curves, seeds_over_updates, thin
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import cells, read_row

COLUMNS = 3
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}


# What can be drawn, of a run and of a sweep; the first is the default.
OF_RUN = {
    "curves": "the learning curves",
    "inside": "what is carried where, from inspect.json (modelnative inspect RUN)",
    "certificate": "what agents without abilities reach, from certificate.json (modelnative certify RUN)",
}
OF_SWEEP = {
    "comparison": "solved, success and seconds of every group, over seeds",
    "seeds": "success of every seed over the updates, the median and the quartiles",
}


def write_plot(folder: Path, file: Path | None = None, title: str | None = None, figure: str | None = None) -> Path:
    """Draw a figure of a run, finished or not, or of a sweep, into a file.

    Args:
        folder: of the run or sweep.
        file: PNG, SVG or PDF, by its suffix; replaced if it exists. By default FIGURE.svg in the folder.
        title: of the only curve to draw, such as `Success`; all by default.
        figure: one of `OF_RUN` or `OF_SWEEP`; by default the first.

    Raises:
        UserError: another suffix or figure, nothing to draw yet, no such curve, damaged files, or the file cannot be
            written.
    """
    names = OF_SWEEP if Sweep.exists(folder) else OF_RUN
    figure = choose("figure", figure or next(iter(names)), list(names))
    require(title is None or figure == "curves", "curve", title, f"none beside the figure {figure}")
    file = folder / f"{figure}.svg" if file is None else file
    require_path("out", file)
    require(file.suffix[1:] in KINDS, "out", str(file), f"a file that ends with {', '.join(f'.{k}' for k in KINDS)}")
    kind = file.suffix[1:]
    try:
        if names is OF_SWEEP:
            content = _of_sweep(Sweep.open(folder), figure, kind)
        else:
            run = Run.open(folder)
            content = {"curves": _curves, "inside": _inside, "certificate": _certificate}[figure](run, kind, title)
    except UserError:
        raise
    except PART_ERRORS as error:
        raise UserError(f"{folder}: what the figure {figure} is drawn from is damaged ({in_words(error)})") from error
    write(file, content)
    return file


def _curves(run: Run, kind: str, title: str | None) -> bytes:
    task = run.task()
    drawn = curves(run.metrics(), task.spec.stages, hints=run.config.curriculum in ("hints", "discover"))
    if not drawn:
        raise UserError(f"run: {str(run.path)!r} has no update yet; there is nothing to draw")
    if title is not None:
        choose("curve", title, [name for name, *_ in drawn])
        drawn = [chart for chart in drawn if chart[0] == title]
    columns = min(COLUMNS, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    with figures(STYLE) as figure_class:
        figure = figure_class(figsize=(4 * columns, 2.6 * rows))
        for number, (name, meaning, lines, limits) in enumerate(drawn, 1):
            axes = figure.add_subplot(rows, columns, number)
            axes.set_title(name, loc="left", fontweight="bold", pad=16)
            axes.annotate(meaning, (0, 1), (0, 4), "axes fraction", "offset points", fontsize=8, color="#5f6b73")
            for label, color, x, values in lines:
                axes.plot(*thin(x, values), color=color, linewidth=1.4, label=label or None)
            if limits:
                axes.set_ylim(limits[0] - 0.02, limits[1] + 0.05)
            if any(label for label, *_ in lines):
                axes.legend(fontsize=7, frameon=False, ncols=math.ceil(len(lines) / 12))
            axes.grid(alpha=0.15)
            axes.set_xlabel("update")
        return saved(figure, kind)


def _inside(run: Run, kind: str, title: str | None) -> bytes:
    """A heat map for each stage that was inspected."""
    stages = sections(read_json(_needed(run.inspection_path, run.command("inspect"))))
    heights = [0.9 + 0.3 * len(stage.rows) for stage in stages]
    with figures(STYLE) as figure_class:
        figure = figure_class(figsize=(9, sum(heights)))
        for axes, stage in zip(_column(figure, heights), stages, strict=True):
            shares = [[np.nan if cell.followed is None else cell.followed for cell in row[2]] for row in stage.rows]
            axes.imshow(np.array(shares), vmin=0, vmax=1, cmap="Blues", aspect="auto")
            for y, row in enumerate(shares):
                for x, share in enumerate(row):
                    text, color = ("·", "#5f6b73") if math.isnan(share) else (f"{share:.2f}", "#1d2327")
                    axes.text(x, y, text, ha="center", va="center", fontsize=7, color="#fff" if share > 0.6 else color)
            axes.set_xticks(range(len(stage.keys)), [str(key) for key in stage.keys])
            axes.set_yticks(range(len(stage.rows)), [name for name, *_ in stage.rows])
            axes.set_title(f"{stage.stage}: share of pairs that follow an exchange before each action", loc="left")
        return saved(figure, kind)


def _certificate(run: Run, kind: str, title: str | None) -> bytes:
    """The success of every agent on every stage, with the 95% interval where problems were drawn."""
    found = Certificate.of(read_json(_needed(run.certificate_path, run.command("certify"))))
    with figures(STYLE) as figure_class:
        figure = figure_class(figsize=(7, 0.6 + 1.9 * len(found.stages)))
        for axes, stage in zip(_column(figure, [1.0] * len(found.stages)), found.stages, strict=True):
            names = [name for name in AGENTS if name in stage.figures]
            for place, name in enumerate(names):
                rate = stage.figures[name]
                axes.barh(place, rate.rate, color=STAGE_COLORS[0 if name == "oracle" else 3], height=0.6)
                axes.text(1.02, place, f"{'' if rate.best else '≥ '}{rate.rate:.3f}", va="center", fontsize=7)
                if rate.interval is not None:
                    axes.plot(rate.interval, [place, place], color="#1d2327", linewidth=1)
            axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
            axes.invert_yaxis()
            axes.set_xlim(0, 1)
            axes.set_title(f"{found.task} {stage.stage}: success without the abilities", loc="left")
        return saved(figure, kind)


def _of_sweep(sweep: Sweep, figure: str, kind: str) -> bytes:
    if figure == "comparison":
        groups = cells([read_row(sweep, trial) for trial in sweep.trials])
        if not groups:
            raise UserError(f"sweep: {str(sweep.path)!r} has no result yet; finish it with: {sweep.resume_command}")
        return sweep_plot.draw(sweep.spec.name, groups, kind)
    runs = [run for run in map(sweep.run, sweep.trials) if run.metrics_path.exists()]
    lines = [metrics for run in runs if (metrics := run.metrics())]
    if not lines:
        raise UserError(f"sweep: {str(sweep.path)!r} has no update yet; there is nothing to draw")
    stages = runs[0].task().spec.stages
    with figures(STYLE) as figure_class:
        figure_ = figure_class(figsize=(4 * min(COLUMNS, len(stages)), 2.6 * math.ceil(len(stages) / COLUMNS)))
        for s, stage in enumerate(stages):
            axes = figure_.add_subplot(math.ceil(len(stages) / COLUMNS), min(COLUMNS, len(stages)), s + 1)
            _seeds(axes, [[(x["update"], x["success"][s]) for x in metrics] for metrics in lines], s)
            axes.set_title(stage, loc="left", fontweight="bold")
        return saved(figure_, kind)


def _seeds(axes: Any, seeds: Sequence[Sequence[tuple[int, float | None]]], s: int) -> None:
    """Each seed thin, the median over it, the band between the quartiles. A seed that ended keeps its last value."""
    curves, update, values = seeds_over_updates(seeds)
    axes.set_ylim(-0.02, 1.05)
    axes.set_xlabel("update")
    axes.grid(alpha=0.15)
    if not curves:
        axes.text(0.5, 0.5, "not measured yet", ha="center", transform=axes.transAxes)
        return
    color = STAGE_COLORS[s % len(STAGE_COLORS)]
    for row in values:
        axes.plot(update, row, color=color, alpha=0.3, linewidth=0.8)
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    axes.fill_between(update, low, high, color=color, alpha=0.2, linewidth=0)
    axes.plot(update, middle, color=color, linewidth=1.8)


def _needed(path: Path, command: str) -> Path:
    if not path.exists():
        raise UserError(f"{path}: is missing; it is written by: {command}")
    return path


def _column(figure: Any, heights: Sequence[float]) -> list[Any]:
    """Axes below each other."""
    return list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
