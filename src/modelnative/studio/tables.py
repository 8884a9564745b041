"""What the terminal shows: results, trajectories, tasks. Rich tables, so that a narrow terminal folds them."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from modelnative.errors import UserError
from modelnative.evidence.evaluate import Count, Evaluation, floor
from modelnative.evidence.explain import ExplainedToken, Explanation
from modelnative.evidence.statistics import wilson
from modelnative.runs.training import Finished
from modelnative.tasks import make_task, option_parameters, task_entries
from modelnative.tasks.contract.task import AnyTask, program_length

WIDE = 120  # columns where standard output is a file or a pipe


def console() -> Console:
    """Standard output; a file or a pipe is as wide as the tables need."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(file=sys.stdout, highlight=False, width=WIDE if piped else None)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table in the house's style."""
    empty = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1), collapse_padding=True)
    for column in columns:
        empty.add_column(column, justify="right" if column in right else "left")
    return empty


# Results


def results(evaluation: Evaluation) -> Table:
    """Stage × train, held-out and all; greedy counts are exact, sampled ones carry a 95% Wilson interval."""
    splits = list(dict.fromkeys(count.split for count in evaluation.counts))
    columns = [*splits, "all"] if len(splits) > 1 else splits
    names = ["held-out" if column == "heldout" else column for column in columns]
    shown = table("stage", *names, right=tuple(names))
    stages = list(dict.fromkeys(count.stage for count in evaluation.counts))
    for stage in [*stages, None] if len(stages) > 1 else stages:
        counts = [evaluation.total(stage, None if column == "all" else column) for column in columns]
        shown.add_row(stage or "all", *(share(count, exact=evaluation.greedy and count.whole) for count in counts))
    return shown


def share(count: Count, *, exact: bool) -> str:
    """Successes, problems, rate; and where every problem was tried only once by chance, the interval of the rate.

    Example:
        >>> share(Count("T0", "all", 999, 1000), exact=True)
        '999/1000 0.999'
        >>> share(Count("T0", "all", 999, 1000), exact=False)
        '999/1000 0.999 [0.994, 1.000]'
    """
    text = f"{count.successes}/{count.problems} {floor(count.rate)}"
    if exact or not count.problems:
        return text
    low, high = wilson(count.successes, count.problems)
    return f"{text} [{low:.3f}, {high:.3f}]"


def seeds(ends: Sequence[Finished]) -> Table:
    """Every seed of a training of several."""
    shown = table(
        "seed", "greedy, every problem", "sampled", "updates", "seconds", right=("seed", "updates", "seconds")
    )
    for end in ends:
        seed = str(end.run.config.seed)
        shown.add_row(seed, end.evaluation.line(), end.sampled.line(), str(end.updates), f"{end.seconds:.1f}")
    return shown


def finished(end: Finished) -> list[str]:
    """The last lines of a training; the first is the verdict."""
    run, evaluation = end.run, end.evaluation
    splits = {"train": "train split", "heldout": "held-out   "}
    lines = [evaluation.line(), ""]
    for split, name in splits.items():
        counts = [c for c in evaluation.counts if c.split == split]
        seen = "never seen in training" if split == "heldout" and run.config.split == "train" else ""
        lines.append(f"  {name}  {Evaluation(tuple(counts), greedy=True).line()} {seen}".rstrip())
    lines += [
        f"  sampled      {end.sampled.line()} at temperature 1",
        f"  cost         {end.seconds:.1f} s, {end.updates} updates, {end.episodes:,} episodes, {end.steps:,} steps",
        "",
        f"  run          {run.path}",
        f"  report       {run.path / 'report.html'}",
        f"  weights      {run.weights_path}",
        "",
    ]
    taught = run.task().spec.stages[: run.config.stages or None]
    counts = [c for c in evaluation.counts if c.stage in taught and run.config.split in ("all", c.split)]
    if not Evaluation(tuple(counts), True).reaches(run.config.target_success):
        missing = sum(c.problems - c.successes for c in counts)
        lines += [
            f"Not solved: {missing} training problems still fail after the whole budget. To go on, try another seed, "
            "more --updates",
            "or --minutes, --curriculum hints with --loss.hint-weight 1, --policy.reader gru where words depend on "
            "their neighbours,",
            "or a wider --policy.width; the report shows where it stands still.",
        ]
    stage = evaluation.counts[-1].stage
    lines += [
        f"Next: modelnative evaluate {run.path}",
        f"      modelnative explain {run.path} {example(run.task(), stage)}",
    ]
    return lines


def example(task: AnyTask, stage: str) -> str:
    """The flags of `explain` for some problem of a stage."""
    problems = task.sample(torch.tensor([task.spec.stage_index(stage)]), torch.Generator().manual_seed(0), "heldout")
    record = task.records(problems, task.begin(problems))[0]
    return f'--stage {stage} --problem "{record.get("problem", "…")}"'


# Trajectories


def verdict(explanation: Explanation) -> str:
    """What became of an episode, in a sentence or two."""
    rows, oracle, record = explanation.rows, explanation.oracle, explanation.record
    answer, target = record.get("answer"), record.get("target")
    first = next((t for t, row in enumerate(rows) if differs(row)), None)
    if oracle and first is None:
        return f"Right: it answered {answer}, the target, in {len(rows)} tokens: the oracle's program, token for token."
    if explanation.success:
        more = len(rows) - len(oracle)
        beside = f"{abs(more)} {'more' if more > 0 else 'fewer'} than" if more else "as many as"
        than_oracle = f", {beside} the oracle" if oracle else ""
        said = f"Right: it answered {answer}, the target, in {len(rows)} tokens{than_oracle}."
    elif explanation.truncated:
        said = f"Wrong: no answer within the horizon of {len(rows)} tokens; the target is {target}."
    elif answer is None:
        said = f"Wrong: it ended without an answer after {len(rows)} tokens; the target is {target}."
    else:
        said = f"Wrong: it answered {answer} after {len(rows)} tokens; the target is {target}."
    if first is None:
        return said
    instead = f"instead of {rows[first].oracle}" if rows[first].oracle else "past the end of the oracle's program"
    return f"{said} It first differs from the oracle at step {first + 1}: {rows[first].token} {instead}."


def differs(row: ExplainedToken) -> bool:
    """Whether a token is not the oracle's; False without an oracle."""
    return row.oracle is not None and row.token != row.oracle


def marks(row: ExplainedToken) -> list[str]:
    """What stands out about a token."""
    return [*(["differs"] if differs(row) else []), *(["no effect"] if not row.valid else [])]


def copied(row: ExplainedToken) -> str:
    """Where a token was copied from, and how much of its probability came from there."""
    return f"{row.source} {row.copied:.0%}" if row.source else ""


def trajectory(explanation: Explanation) -> Table:
    """A row a token."""
    numbers = ("step", "prob.", "value", "entropy")
    registers = list(explanation.rows[0].registers)
    shown = table("step", "token", *numbers[1:], "copied", *registers, "oracle", "", right=(*numbers, *registers))
    for step, row in enumerate(explanation.rows, 1):
        shown.add_row(
            str(step),
            Text(row.token, "bold"),
            f"{row.probability:.3f}",
            f"{row.value:.2f}",
            f"{row.entropy:.3f}",
            copied(row),
            *row.registers.values(),
            row.oracle or "",
            ", ".join(marks(row)),
            style="yellow" if marks(row) else None,
        )
    for step, token in enumerate(explanation.oracle[len(explanation.rows) :], len(explanation.rows) + 1):
        shown.add_row(str(step), *[""] * (5 + len(registers)), token, "", style="dim")
    return shown


# Tasks


def task_list() -> Table:
    """Every task that can be named, a line each."""
    shown = table("task", "what it is")
    for name, entry in task_entries().items():
        shown.add_row(Text(name, "bold"), entry.summary)
    return shown


def task_page(name: str) -> Iterator[RenderableType]:
    """One task: stages, an example with the oracle's program, vocabulary, options."""
    task = make_task(name)
    spec = task.spec
    documentation = inspect.getdoc(type(task)) or ""
    yield Text(f"{name}: {documentation.splitlines()[0] if documentation else ''}", "bold")
    stages = table(
        "stage", "problems", "held out", "an example", "the oracle's program", right=("problems", "held out")
    )
    generator = torch.Generator().manual_seed(0)
    for s, stage in enumerate(spec.stages):
        problem = task.sample(torch.tensor([s]), generator)
        program = task.oracle(problem)[0, : int(program_length(task.oracle(problem), spec.end)[0])]
        words = " ".join(spec.vocabulary[token] for token in program.tolist())
        solvable = not spec.solvable or spec.solvable[s]
        stages.add_row(
            Text(stage, "bold"),
            _number(lambda s=s: task.count(s)),  # type: ignore[misc]
            _number(lambda s=s: task.count(s, "heldout")),  # type: ignore[misc]
            task.render(problem, 0),
            words if solvable else f"{words} (not always right)",
        )
    yield stages
    yield f"vocabulary  {' '.join(spec.vocabulary)}"
    yield f"horizon     {spec.horizon} tokens; feedback after each: {spec.feedback_width or 'no'} tokens"
    options = table("option", "default", "meaning")
    explained = arguments(documentation)
    for parameter in option_parameters(name).values():
        options.add_row(Text(parameter.name, "bold"), str(parameter.default), explained.get(parameter.name, ""))
    if options.row_count:
        yield options
        first = next(iter(option_parameters(name).values()))
        yield f"Set them with: modelnative train --task {name} --options {first.name}={first.default}"


def arguments(documentation: str) -> dict[str, str]:
    r"""The section `Args:` of a docstring in Google's style.

    Example:
        >>> arguments("Sums.\n\nArgs:\n    a: one,\n        first.\n    b: two.\n\nReturns:\n    c: no.")
        {'a': 'one, first.', 'b': 'two.'}
    """
    _, _, rest = documentation.partition("Args:\n")
    found: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if line and not line.startswith("    "):
            break
        if start := re.match(r"    (\w+): (.*)", line):
            name = start[1]
            found[name] = start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _number(count: Callable[[], int]) -> str:
    try:
        return f"{count():,}"
    except UserError:
        return "endless"
