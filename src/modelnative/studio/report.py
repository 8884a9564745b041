"""The report of a run: one HTML file that needs nothing else, for a phone as well as a desk, by day and by night."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from modelnative.evidence.evaluate import DRAWN, LISTED, Evaluation
from modelnative.evidence.explain import Explanation, explain_problem
from modelnative.evidence.problem_set import ProblemSet
from modelnative.policies.policy import Policy
from modelnative.runs.files import read_json, write
from modelnative.runs.run import Run
from modelnative.runs.team import seeds_of
from modelnative.studio import tables
from modelnative.studio.live import clock
from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.rollout import play

POINTS = 400  # of a curve; longer ones are averaged
STAGE_COLORS = ("#2a9d8f", "#e9a23b", "#d1495b", "#5b7fd1", "#8e6bbf")
INK = "#010203"  # stands for the page's text colour until the drawing is done
EXAMPLES = 2  # trajectories of each stage, failures first


def write_report(run: Run) -> Path:
    """Write `report.html` into a finished run.

    Raises:
        UserError: the run has no result yet, or the file cannot be written.
    """
    task = run.task()
    policy = run.policy(task)
    metrics = run.metrics()
    result = read_json(run.result_path)
    evaluation, sampled = (_evaluation(result[name]) for name in ("evaluation", "sampled"))
    html = _page("report.html.j2").render(
        run=run,
        config=run.config,
        fields=_fields(run),
        stages=task.spec.stages,
        evaluation=evaluation,
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


def write_seeds(path: Path) -> Path:
    """Write `report.html` into the folder of a finished team: every seed, and the way to its own report.

    Raises:
        UserError: the file cannot be written.
    """
    runs = [Run.open(folder) for folder in seeds_of(path)]
    stages = runs[0].task().spec.stages
    rows, curves = [], []
    for run in runs:
        result = read_json(run.result_path)
        row = {name: result[name] for name in ("updates", "seconds")}
        row |= {"line": result["evaluation"]["line"], "perfect": result["evaluation"]["perfect"]}
        rows.append(row | {"sampled": result["sampled"]["line"], "seed": run.config.seed, "folder": run.path.name})
        curves.append(run.metrics())
    drawn = []
    for s, stage in enumerate(stages):
        lines = [([float(m["update"]) for m in metrics], [m["success"][s] for m in metrics]) for metrics in curves]
        drawn.append((stage, _svg([("", STAGE_COLORS[s % len(STAGE_COLORS)], x, y) for x, y in lines], (0.0, 1.0))))
    html = _page("seeds.html.j2").render(
        path=path,
        config=runs[0].config,
        rows=rows,
        solved=sum(row["perfect"] for row in rows),
        charts=drawn,
        clock=clock,
    )
    write(path / "report.html", html.encode())
    return path / "report.html"


def _page(name: str) -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def _evaluation(saved: dict[str, Any]) -> Evaluation:
    return Evaluation.of(saved)


def _fields(run: Run) -> list[tuple[str, str]]:
    """The configuration, flat, as the command line names it."""
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
            "train it again, to the bit on the same machine",
            f"modelnative train --config {path}/config.json --out NEW",
        ),
        ("play every problem", f"modelnative evaluate {path}"),
        ("write every episode down", f"modelnative evaluate {path} --episodes episodes.jsonl"),
        ("one problem, token by token", f"modelnative explain {path} {explain}"),
    ]


# Trajectories


def _examples(policy: Policy, task: AnyTask, evaluation: Evaluation) -> list[tuple[str, list[Explanation]]]:
    """A few episodes of each stage: a failure first, where there is one."""
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
    """The first problem of a stage that the policy fails."""
    problems: Problems
    for problems in ProblemSet.of(task, stage, "all", LISTED, DRAWN).chunks():
        failed = ~play(policy, task, problems).success
        if bool(failed.any()):
            return [problems[failed][:1]]
    return []


# Learning curves


def charts(metrics: Sequence[dict[str, Any]], stages: Sequence[str], *, hints: bool) -> list[tuple[str, str, Markup]]:
    """The learning curves: title, what it means, SVG; the frontier's only where the curriculum gives hints."""
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
        ("Hint frontier", "share of the program that the policy writes itself", frontier, (0.0, 1.0)),
        ("Entropy", "of the choice of a token, in nats", [("", single, curve("entropy"))], None),
        ("Approximate KL", "between behavior and new policy, in nats", [("", single, curve("approximate_kl"))], None),
        ("Clip fraction", "share of tokens whose ratio was clipped", [("", single, curve("clip_fraction"))], None),
        (
            "Explained variance",
            "of the returns, by the value",
            [("", single, curve("explained_variance"))],
            (-0.5, 1.0),
        ),
        ("Gradient norm", "before clipping", [("", single, curve("gradient_norm"))], None),
        ("Invalid presses", "without effect, in an episode", [("", single, curve("invalid"))], None),
        ("Speed", "thousand steps a second", [("", single, [value / 1000 for value in speed])], None),
    ]
    wanted = [entry for entry in drawn if any(value is not None for _, _, values in entry[2] for value in values)]
    return [
        (title, meaning, _svg([(label, color, update, values) for label, color, values in lines], limits))
        for title, meaning, lines, limits in wanted
    ]


def _frontier(standing: str) -> float:
    """`3/12 free` as a share; 1 once the stage is complete and nothing is said."""
    match = re.fullmatch(r"(\d+)/(\d+) free", standing)
    return int(match[1]) / int(match[2]) if match else 1.0


def _svg(
    lines: Sequence[tuple[str, str, Sequence[float], Sequence[float | None]]], limits: tuple[float, float] | None
) -> Markup:
    """One drawing of lines (label, color, x, y): text as text, the ink in the page's colour, nothing of its own."""
    import matplotlib as mpl  # half a second, which only a report costs
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
        for label, color, x, values in lines:
            axes.plot(*_thin(x, values), color=color, linewidth=1.6, label=label or None)
        if any(label for label, *_ in lines):
            axes.legend(loc="upper left", frameon=False, ncols=len(lines), bbox_to_anchor=(0, 1.16), borderpad=0)
        if limits:
            axes.set_ylim(limits[0] - 0.02, limits[1] + 0.05)
        axes.set_xlim(0, max(x[-1] for _, _, x, _ in lines) * 1.02)
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        axes.set_xlabel("update")
        said = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(said, format="svg", transparent=True, metadata=metadata)
    svg = said.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # Points to the page's own measure; ids would clash between drawings but for clip paths, which they share by salt.
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg role="img" viewBox="\1">', svg, count=1)
    return Markup(re.sub(r' id="(?!p[0-9a-f]{10}|m[0-9a-f]{10})[^"]*"', "", svg))  # matplotlib escapes


def _thin(x: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """At most `POINTS` points: means of neighbours; what was not measured is left out."""
    pairs = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
    size = -(-len(pairs) // POINTS) if pairs else 1
    groups = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return [sum(a for a, _ in g) / len(g) for g in groups], [sum(b for _, b in g) / len(g) for g in groups]
