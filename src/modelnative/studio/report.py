"""Reports as self-contained HTML files, for small and large screens, with a light and a dark theme."""

from __future__ import annotations

import io
import re
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from modelnative.evidence.evaluate import DRAWN, LISTED, Evaluation, floor
from modelnative.evidence.explain import Explanation, explain_problem
from modelnative.evidence.problem_set import ProblemSet
from modelnative.policies.contract import Policy
from modelnative.runs.files import read_json, write
from modelnative.runs.run import Run
from modelnative.studio import tables
from modelnative.studio.live import HINT, clock
from modelnative.studio.sweep import seeds_summary, verdict
from modelnative.studio.sweep_plot import write_comparison
from modelnative.sweeps.events import SweepEvent, SweepFinished
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import Row, cells
from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.rollout import play

POINTS = 400  # of a curve; longer curves are averaged
STAGE_COLORS = ("#2a9d8f", "#e9a23b", "#d1495b", "#5b7fd1", "#8e6bbf")
INK = "#010203"  # placeholder, replaced by the text color of the page
EXAMPLES = 2  # trajectories per stage, failures first


def write_report(run: Run) -> Path:
    """Write `report.html` into the folder of a finished run.

    Raises:
        UserError: the run has no result yet, or the file cannot be written.
    """
    task = run.task()
    policy = run.policy(task)
    metrics = run.metrics()
    result = read_json(run.result_path)
    evaluation, sampled = (Evaluation.of(result[name]) for name in ("evaluation", "sampled"))
    trained = tables.trained_part(evaluation, run)
    html = _page("report.html.j2").render(
        run=run,
        config=run.config,
        fields=_fields(run),
        stages=task.spec.stages,
        evaluation=evaluation,
        trained=trained,
        solved=trained.reaches(run.config.target_success),
        tested=[stage for stage in task.spec.stages if stage not in {count.stage for count in trained.counts}],
        drawn=list(dict.fromkeys(count.stage for count in evaluation.counts if not count.whole)),
        sampled=sampled,
        result=result,
        parameters=sum(p.numel() for p in policy.parameters()),
        charts=charts(metrics, task.spec.stages, hints=run.config.curriculum == "hints"),
        examples=_examples(policy, task, evaluation),
        show=tables,
        clock=clock,
        commands=_commands(run, task),
    )
    path = run.path / "report.html"
    write(path, html.encode())
    return path


def write_seeds(sweep: Sweep, rows: Sequence[Row]) -> Path:
    """Write `report.html` into the folder of a sweep over seeds: the verdict on each seed, medians, learning curves.

    Raises:
        UserError: the file cannot be written.
    """
    finished = [row for row in rows if row.costs]
    rates = list(dict.fromkeys(name for row in rows for name in row.rates if name.startswith("greedy.")))
    stages = [name.partition(".")[2] for name in rates]
    runs = [sweep.run(trial) for trial in sweep.trials]
    metrics = [run.metrics() for run in runs]
    updates = [[float(line["update"]) for line in lines] for lines in metrics]
    drawings = []
    for s, (stage, color) in enumerate(zip(stages, STAGE_COLORS * len(stages), strict=False)):
        success = [[line["success"][s] for line in lines] for lines in metrics]
        curves = [("", color, x, y) for x, y in zip(updates, success, strict=True) if x]
        drawings.append((stage, _svg(curves, (0.0, 1.0))))
    first = shlex.quote(str(runs[0].path / "config.json"))
    html = _page("seeds.html.j2").render(
        path=sweep.path,
        config=runs[0].config,
        fields=_fields(next(run for run in runs if run.result_path.exists())) if finished else [],
        rows=rows,
        stages=list(zip(stages, rates, strict=True)),
        summary=seeds_summary(rows),
        solved=all(row.solved for row in rows),
        medians={name: statistics.median(row.costs[name] for row in finished) for name in ("updates", "seconds")}
        if finished
        else None,
        median_rate=lambda name: statistics.median(row.rates[name] for row in finished),
        verdict=verdict,
        floor=floor,
        charts=drawings,
        clock=clock,
        command=f"modelnative train --config {first} --seeds {len(rows)} --out NEW",
    )
    write(sweep.report_path, html.encode())
    return sweep.report_path


def write_sweep_report(event: SweepEvent) -> None:
    """A callback: when a sweep finishes, write the comparison of its trials, or of its seeds if only these differ.

    Raises:
        UserError: a file cannot be written.
    """
    if isinstance(event, SweepFinished):
        if event.sweep.seeds_only:
            write_seeds(event.sweep, event.rows)
        elif grouped := cells(event.rows):
            write_comparison(event.sweep.path, event.sweep.spec.name, grouped)


def _page(name: str) -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def _fields(run: Run) -> list[tuple[str, str]]:
    """The configuration as pairs of flag name and value."""
    values = read_json(run.path / "config.json")
    flat: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict) and name != "options":
            flat += [(f"{name}.{inner}", str(v)) for inner, v in value.items()]
        elif name != "format":
            flat.append((name, str(value)))
    return flat


def _commands(run: Run, task: AnyTask) -> list[tuple[str, str]]:
    path = shlex.quote(str(run.path))
    explain = tables.example(task, task.spec.stages[-1])
    return [
        (
            "train it again (bit-identical on the same machine)",
            f"modelnative train --config {path}/config.json --out NEW",
        ),
        ("evaluate it", f"modelnative evaluate {path}"),
        ("write every episode to a file", f"modelnative evaluate {path} --episodes episodes.jsonl"),
        ("explain one problem, token by token", f"modelnative explain {path} {explain}"),
    ]


# Trajectories


def _examples(policy: Policy, task: AnyTask, evaluation: Evaluation) -> list[tuple[str, list[Explanation]]]:
    """A few episodes of each stage; a failure comes first, if there is one."""
    examples = []
    for s, stage in enumerate(task.spec.stages):
        drawn = task.sample(torch.full((EXAMPLES,), s), torch.Generator().manual_seed(0), "heldout")
        chosen = [drawn[i : i + 1] for i in range(EXAMPLES)]
        count = evaluation.total(stage)
        if count.successes < count.problems:
            chosen = [*_failure(policy, task, s), *chosen][:EXAMPLES]
        examples.append((stage, [explain_problem(policy, task, problem) for problem in chosen]))
    return examples


def _failure(policy: Policy, task: AnyTask, stage: int) -> list[Problems]:
    """The first problem of a stage that the policy fails; empty if there is none."""
    problems: Problems
    for problems in ProblemSet.of(task, stage, "all", LISTED, DRAWN).chunks():
        failed = ~play(policy, task, problems).success
        if bool(failed.any()):
            return [problems[failed][:1]]
    return []


# Learning curves


def charts(metrics: Sequence[dict[str, Any]], stages: Sequence[str], *, hints: bool) -> list[tuple[str, str, Markup]]:
    """Learning curves: title, meaning, SVG. The hint frontier is shown only if the curriculum gives hints."""
    if not metrics:
        return []
    update = [float(line["update"]) for line in metrics]

    def curve(name: str) -> list[float | None]:
        return [line[name] for line in metrics]

    per_stage = list(zip(stages, STAGE_COLORS * len(stages), strict=False))
    success = [(stage, color, [line["success"][s] for line in metrics]) for s, (stage, color) in enumerate(per_stage)]
    frontier = [
        (stage, color, [_frontier(line["stages"][s]) if hints else None for line in metrics])
        for s, (stage, color) in enumerate(per_stage)
    ]
    speed = [line["timing"]["steps_per_second"] for line in metrics]
    single = STAGE_COLORS[3]
    drawn: list[tuple[str, str, list[tuple[str, str, list[float | None]]], tuple[float, float] | None]] = [
        ("Success", "of episodes without a hint, smoothed", success, (0.0, 1.0)),
        ("Hint frontier", "share of the program that the policy writes without help", frontier, (0.0, 1.0)),
        ("Entropy", "of the token distribution, in nats", [("", single, curve("entropy"))], None),
        ("Approximate KL", "between old and new policy, in nats", [("", single, curve("approximate_kl"))], None),
        ("Clip fraction", "share of tokens whose ratio was clipped", [("", single, curve("clip_fraction"))], None),
        (
            "Explained variance",
            "of the returns, by the value head",
            [("", single, curve("explained_variance"))],
            (-0.5, 1.0),
        ),
        ("Gradient norm", "before clipping", [("", single, curve("gradient_norm"))], None),
        ("Wasted actions", "per episode: actions without effect", [("", single, curve("invalid"))], None),
        ("Speed", "thousand steps per second", [("", single, [value / 1000 for value in speed])], None),
    ]
    wanted = [entry for entry in drawn if any(value is not None for _, _, values in entry[2] for value in values)]
    return [
        (title, meaning, _svg([(label, color, update, values) for label, color, values in lines], limits))
        for title, meaning, lines, limits in wanted
    ]


def _frontier(state: str) -> float:
    """`3/12 free` as a share; 1 when the stage has no hints any more."""
    match = HINT.fullmatch(state)
    return int(match[1]) / int(match[2]) if match else 1.0


def _svg(
    lines: Sequence[tuple[str, str, Sequence[float], Sequence[float | None]]], limits: tuple[float, float] | None
) -> Markup:
    """A legend and a drawing of lines (label, color, x, y), with the font and text color of the page."""
    import matplotlib as mpl  # takes half a second
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "modelnative",
        "font.family": "sans-serif",
        "font.size": 10,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.2, 2.3), layout="constrained")
        axes = figure.add_subplot()
        for _, color, x, values in lines:
            axes.plot(*_thin(x, values), color=color, linewidth=1.6)
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
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg role="img" viewBox="\1">', svg, count=1)
    svg = re.sub(r' id="(?!p[0-9a-f]{10}|m[0-9a-f]{10})[^"]*"', "", svg)
    # A legend in HTML wraps, however many stages there are.
    legend = "".join(
        f'<span><i style="background:{color}"></i>{escape(label)}</span>' for label, color, *_ in lines if label
    )
    return Markup(f'<div class="legend">{legend}</div>{svg}' if legend else svg)  # matplotlib escapes its text


def _thin(x: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """At most `POINTS` points: means of neighbors, without values that were not measured."""
    pairs = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
    size = -(-len(pairs) // POINTS) if pairs else 1
    groups = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return [sum(a for a, _ in g) / len(g) for g in groups], [sum(b for _, b in g) / len(g) for g in groups]
