"""Reports as self-contained HTML files, for small and large screens, with a light and a dark theme."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from modelnative.errors import UserError, in_words
from modelnative.evidence.certificate import Certificate
from modelnative.evidence.evaluate import floor
from modelnative.policies.config_model import dotted
from modelnative.runs.files import read_json, write
from modelnative.runs.run import Run
from modelnative.studio import certificate as certificates
from modelnative.studio import inspection, player, tables
from modelnative.studio.figures import figures
from modelnative.studio.live import HINT, clock
from modelnative.studio.sweep import seeds_summary, verdict
from modelnative.studio.sweep_plot import write_comparison
from modelnative.sweeps.events import SweepEvent, SweepFinished
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import Row, cells
from modelnative.tasks.importing import trust_flags

AXES = (0.14, 0.21, 0.84, 0.74)  # left, bottom, width, height, as shares of a drawing
POINTS = 400  # of a curve; longer curves are averaged
STAGE_COLORS = ("#2a9d8f", "#e9a23b", "#d1495b", "#5b7fd1", "#8e6bbf")
# Of all stages together: title, meaning, key in a line of the metrics, limits.
CURVES: tuple[tuple[str, str, str, tuple[float, float] | None], ...] = (
    ("Entropy", "of the token distribution, in nats", "entropy", None),
    ("Approximate KL", "between old and new policy, in nats", "approximate_kl", None),
    ("Clip fraction", "share of tokens whose ratio was clipped", "clip_fraction", None),
    ("Explained variance", "of the returns, by the value head", "explained_variance", (-0.5, 1.0)),
    ("Gradient norm", "before clipping", "gradient_norm", None),
    ("Wasted actions", "per episode: actions without effect", "invalid", None),
)
Line = tuple[str, str, Sequence[float], Sequence[float | None]]  # of a drawing: label, color, x, y
INK = "#010203"  # placeholder, replaced by the text color of the page
# What a damaged file, or the code of a user's task, may raise.
PART_ERRORS = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
T = TypeVar("T")


def write_report(run: Run) -> Path:
    """Write `report.html` into the folder of a finished run.

    Raises:
        UserError: the run has no result yet, or the file cannot be written.
    """
    return write_run_report(run)[0]


def write_run_report(run: Run) -> tuple[Path, list[str]]:
    """Like `write_report`; also returns what is missing in it: a line for each file that cannot be read.

    Raises:
        UserError: the run has no result yet, or the file cannot be written.
    """
    _require_result(run)
    faults: list[str] = []

    def part(name: str | Path, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except PART_ERRORS as error:
            faults.append(str(error) if isinstance(error, UserError) else f"{name}: {in_words(error)}")
            return None

    result = part(run.result_path, run.result)
    counts = result.evaluation.counts if result else ()
    task = part("task", run.task)
    policy = part(run.weights_path, lambda: run.policy(task)) if task else None
    stages = task.spec.stages if task else tuple(dict.fromkeys(count.stage for count in counts))
    hints = run.config.curriculum in ("hints", "discover")
    html = _page("report.html.j2").render(
        run=run,
        config=run.config,
        fields=_fields(run),
        stages=stages,
        result=result,
        trained=tables.trained_part(result.evaluation, run) if result else None,
        drawn=list(dict.fromkeys(count.stage for count in counts if not count.whole)),
        parameters=sum(p.numel() for p in policy.parameters()) if policy else None,
        alarms=part(run.alarms_path, run.first_alarms),
        charts=part(run.metrics_path, lambda: charts(run.metrics(), stages, hints=hints)),
        episodes=part("episodes", lambda: player.chosen(policy, task, result)) if task and policy else None,
        example=part("episodes", lambda: tables.example(task, stages[-1])) if task else None,
        inside=(inside := part(run.inspection_path, lambda: _inside(run))),
        carried=player.script_json({section.stage: asdict(section) for section in inside or []}),
        certificate=part(run.certificate_path, lambda: _certificate(run)),
        certify=run.command("certify"),
        faults=faults,
        show=tables,
        floors=certificates,
        data=player.data,
        clock=clock,
        again=f"modelnative train --config {_config_of(run)} --out NEW{trust_flags([vars(run.config)])}",
    )
    path = run.path / "report.html"
    _require_result(run)  # the folder may have been deleted meanwhile, and writing would make it again
    write(path, html.encode(errors="replace"))  # a path may hold bytes that are no text
    return path, faults


def _inside(run: Run) -> list[inspection.Section]:
    """What `modelnative inspect` found, if it was called."""
    return inspection.sections(read_json(run.inspection_path)) if run.inspection_path.exists() else []


def _certificate(run: Run) -> Certificate | None:
    """What `modelnative certify` measured of the task, if it was called."""
    return Certificate.of(read_json(run.certificate_path)) if run.certificate_path.exists() else None


def _require_result(run: Run) -> None:
    if not run.result_path.exists():
        raise UserError(f"run: {str(run.path)!r} has no result yet; finish it with: {run.command('resume')}")


def write_seeds(sweep: Sweep, rows: Sequence[Row]) -> Path:
    """Write `report.html` into the folder of a sweep over seeds: verdicts, medians and ranges, learning curves.

    Raises:
        UserError: the file cannot be written.
    """
    finished = [row for row in rows if row.costs]
    stages = list(dict.fromkeys(stage for row in rows for stage in row.greedy))
    runs = [sweep.run(trial) for trial in sweep.trials]
    learned = []  # of each seed: of each stage, update and success
    for run in runs:
        with contextlib.suppress(*PART_ERRORS):  # damaged; the other seeds are still worth a drawing
            learned.append(_success(run.metrics(), len(stages)))
    html = _page("seeds.html.j2").render(
        path=sweep.path,
        config=runs[0].config,
        fields=_fields(runs[0]),
        rows=rows,
        stages=stages,
        summary=seeds_summary(rows),
        solved=all(row.solved for row in rows),
        totals=[
            (
                name,
                f"{of(row.costs['updates'] for row in finished):g}",
                clock(of(row.costs["seconds"] for row in finished)),
                *(floor(of(row.greedy[stage] for row in finished if stage in row.greedy)) for stage in stages),
            )
            for name, of in (("median", statistics.median), ("lowest", min), ("highest", max))
            if finished
        ],
        verdict=verdict,
        floor=floor,
        charts=[
            (stage, _seeds_chart([of_stages[s] for of_stages in learned], color))
            for (s, stage), color in zip(enumerate(stages), STAGE_COLORS * len(stages), strict=False)
        ],
        clock=clock,
        command=f"modelnative train --config {_config_of(runs[0])} --seeds {len(rows)} --out NEW"
        f"{trust_flags([vars(runs[0].config)])}",
    )
    write(sweep.report_path, html.encode(errors="replace"))
    return sweep.report_path


def _success(metrics: Sequence[dict[str, Any]], stages: int) -> list[list[tuple[int, float | None]]]:
    """Of each stage, every update and its success; a value that is none raises one of `PART_ERRORS`."""
    success = [(line["update"], line["success"]) for line in metrics]
    return [[(x, None if y[s] is None else float(y[s])) for x, y in success] for s in range(stages)]


def _seeds_chart(seeds: Sequence[Sequence[tuple[int, float | None]]], color: str) -> Markup:
    """The success of each seed, thin; over it the median, and the band from the first to the third quartile."""
    curves, update, values = seeds_over_updates(seeds)
    if not curves:
        return Markup("")
    low, median, high = np.percentile(values, (25, 50, 75), axis=0)

    def seeds_and_band(axes: Any) -> None:
        for curve in curves:
            axes.plot(*thin(*zip(*curve, strict=True)), color=color, linewidth=0.6, alpha=0.5)
        axes.fill_between(update, low, high, color=color, alpha=0.2, linewidth=0)

    return _svg([("", color, update, list(median))], (0.0, 1.0), seeds_and_band)


def seeds_over_updates(
    seeds: Sequence[Sequence[tuple[int, float | None]]],
) -> tuple[list[list[tuple[int, float]]], list[int], list[npt.NDArray[np.float64]]]:
    """The measured points of each seed that has some; updates; and the value of each of these seeds at them.

    A seed that has ended counts with its last value.
    """
    curves = [curve for seed in seeds if (curve := [(x, y) for x, y in seed if y is not None])]
    if not curves:
        return [], [], []
    first, last = max(curve[0][0] for curve in curves), max(curve[-1][0] for curve in curves)
    update = np.unique(np.linspace(first, max(first, last), POINTS).astype(int))
    values = [
        np.array([y for _, y in curve])[np.searchsorted([x for x, _ in curve], update, side="right") - 1]
        for curve in curves
    ]
    return curves, update.tolist(), values


def write_sweep_report(event: SweepEvent) -> None:
    """A callback: when a sweep finishes, write the comparison of its trials, or of its seeds if only these differ.

    Raises:
        UserError: a file cannot be written.
    """
    if isinstance(event, SweepFinished):
        write_sweep_reports(event.sweep, event.rows)


def write_sweep_reports(sweep: Sweep, rows: Sequence[Row]) -> list[Path]:
    """The files of `write_sweep_report`; none for a sweep without a finished trial.

    Raises:
        UserError: a file cannot be written.
    """
    if sweep.seeds_only:
        return [write_seeds(sweep, rows)]
    grouped = cells(rows)
    return write_comparison(sweep.path, sweep.spec.name, grouped) if grouped else []


def _page(name: str) -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = player.asset("player.js")
    css = player.asset("page.css") + player.asset("player.css")
    environment.globals |= {"css": css, "script": script, "policy": player.content_policy(script)}
    return environment.get_template(name)


def _config_of(run: Run) -> str:
    """The file of a run's configuration, to be typed in a shell."""
    return shlex.quote(str(run.path / "config.json"))


def _fields(run: Run) -> list[tuple[str, str]]:
    """The configuration as pairs of flag name and value."""
    return [(name, str(value)) for name, value in dotted(run.config.model_dump(), whole="options").items()]


# Learning curves


Limits = tuple[float, float] | None


def charts(metrics: Sequence[dict[str, Any]], stages: Sequence[str], *, hints: bool) -> list[tuple[str, str, Markup]]:
    """Learning curves: title, meaning, SVG. The hint frontier is shown only if the curriculum gives hints."""
    drawn = curves(metrics, stages, hints=hints)
    return [(title, meaning, _svg(lines, limits)) for title, meaning, lines, limits in drawn]


def curves(
    metrics: Sequence[dict[str, Any]], stages: Sequence[str], *, hints: bool
) -> list[tuple[str, str, list[Line], Limits]]:
    """The curves that were measured: title, meaning, lines, limits of the vertical axis."""
    update = [float(line["update"]) for line in metrics]

    def per_stage(value: Callable[[dict[str, Any], int], float | None]) -> list[Line]:
        colors = itertools.cycle(STAGE_COLORS)
        return [(stage, next(colors), update, [value(line, s) for line in metrics]) for s, stage in enumerate(stages)]

    def single(values: list[float | None]) -> list[Line]:
        return [("", STAGE_COLORS[3], update, values)]

    success = per_stage(lambda line, s: line["success"][s])
    speed: list[float | None] = [line["timing"]["steps_per_second"] / 1000 for line in metrics]
    frontier = per_stage(lambda line, s: _frontier(line["stages"][s])) if hints else []
    drawn: list[tuple[str, str, list[Line], Limits]] = [
        ("Success", "of episodes without a hint, smoothed", success, (0.0, 1.0)),
        ("Hint frontier", "share of the program that the policy writes without help", frontier, (0.0, 1.0)),
        *((title, meaning, single([line[key] for line in metrics]), limits) for title, meaning, key, limits in CURVES),
        ("Speed", "thousand steps per second", single(speed), None),
    ]
    return [chart for chart in drawn if any(value is not None for *_, values in chart[2] for value in values)]


def _frontier(state: str) -> float:
    """`3/12 free` as a share; 1 when the stage has no hints any more."""
    match = HINT.fullmatch(state)
    return int(match[1]) / int(match[2]) if match else 1.0


def _svg(
    lines: Sequence[Line], limits: tuple[float, float] | None, beneath: Callable[[Any], None] = lambda axes: None
) -> Markup:
    """A legend and a drawing of lines (label, color, x, y), with the font and text color of the page.

    `beneath` draws on matplotlib's axes before the lines.
    """
    style = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with figures(style) as figure_class:
        figure = figure_class(figsize=(4.2, 2.3))
        axes = figure.add_axes(AXES)  # a layout that is computed takes as long as the drawing itself
        beneath(axes)
        for _, color, x, values in lines:
            axes.plot(*thin(x, values), color=color, linewidth=1.6)
        if limits:
            axes.set_ylim(limits[0] - 0.02, limits[1] + 0.05)
        axes.set_xlim(0, max(x[-1] for _, _, x, _ in lines) * 1.02)
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        axes.set_xlabel("update")
        buffer = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # The page sets the size. Ids would clash between drawings, except those of clip paths, which the salt makes equal.
    ends = [(label, next((y for y in reversed(values) if y is not None), None)) for label, _, _, values in lines]
    spoken = escape("last: " + ", ".join(f"{label} {y:.3g}".strip() for label, y in ends if y is not None))
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        lambda found: f'<svg role="img" aria-label="{spoken}" viewBox="{found[1]}">',
        svg,
        count=1,
    )
    svg = re.sub(r' id="(?!p[0-9a-f]{10}|m[0-9a-f]{10})[^"]*"', "", svg)
    # A legend in HTML wraps, however many stages there are.
    legend = "".join(
        f'<span><i style="background:{color}"></i>{escape(label)}</span>' for label, color, *_ in lines if label
    )
    return Markup(f'<div class="legend">{legend}</div>{svg}' if legend else svg)  # matplotlib escapes its text


def thin(x: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """At most `POINTS` points: means of neighbors, without values that were not measured."""
    pairs = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
    size = -(-len(pairs) // POINTS) if pairs else 1
    groups = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return [sum(a for a, _ in g) / len(g) for g in groups], [sum(b for _, b in g) / len(g) for g in groups]
