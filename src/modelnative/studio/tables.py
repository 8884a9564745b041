"""Tables for the terminal: results, trajectories, tasks."""

from __future__ import annotations

import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterator

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from modelnative.errors import UserError
from modelnative.evidence.evaluate import Count, Evaluation, floor
from modelnative.evidence.explain import ExplainedToken, Explanation
from modelnative.evidence.statistics import wilson
from modelnative.runs.events import Finished
from modelnative.runs.run import Run
from modelnative.tasks import make_task, option_parameters, task_entries
from modelnative.tasks.contract.task import AnyTask, program_length
from modelnative.training.config import TrainConfig

PIPE_WIDTH = 120  # columns, if standard output is a file or a pipe


class StandardOutput(Console):
    """Standard output. Whoever reads it may leave: what is printed afterwards is lost, and a training goes on."""

    def on_broken_pipe(self) -> None:
        """Discard all further output, instead of leaving the program as rich does."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Console:
    """Standard output. A file or a pipe has a fixed width, unless COLUMNS says one.

    Colours are as FORCE_COLOR, NO_COLOR and the terminal say; only a terminal is drawn on.
    """
    is_terminal, environment = sys.stdout.isatty(), dict(os.environ)
    columns = environment.pop("COLUMNS", "")
    width = int(columns) if re.fullmatch("[1-9][0-9]{0,3}", columns) else None if is_terminal else PIPE_WIDTH
    return StandardOutput(
        file=sys.stdout,
        highlight=False,
        width=width,
        force_interactive=None if is_terminal else False,
        _environ=environment,
    )


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table in the common style."""
    empty = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1), collapse_padding=True)
    for column in columns:
        empty.add_column(column, justify="right" if column in right else "left")
    return empty


# Results


def results(evaluation: Evaluation) -> Table:
    """Stages by splits. Sampled actions and drawn problems give estimates, shown with a 95% Wilson interval."""
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
    """Successes, problems and rate; with a 95% Wilson interval unless the count is `exact`.

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
    return f"{text} [{floor(low)}, {math.ceil(high * 1000 - 1e-9) / 1000:.3f}]"  # rounded outwards: it holds the rate


def finished(end: Finished) -> list[str]:
    """The last lines of a training; the first is the verdict."""
    run, evaluation = end.run, end.evaluation
    splits = {"train": "train split", "heldout": "held-out   "}
    lines = [evaluation.line(), ""]
    for split, name in splits.items():
        counts = [c for c in evaluation.counts if c.split == split]
        unseen = "never seen in training" if split == "heldout" and run.config.split == "train" else ""
        lines.append(f"  {name}  {Evaluation(tuple(counts), greedy=True).line()} {unseen}".rstrip())
    lines += [
        f"  sampled      {end.sampled.line()} at temperature 1",
        f"  cost         {end.seconds:.1f} s, {end.updates} updates, {end.episodes:,} episodes, {end.steps:,} steps",
        "",
        f"  run          {run.path}",
        f"  report       {run.path / 'report.html'}",
        f"  weights      {run.weights_path}",
        "",
    ]
    trained = trained_part(evaluation, run)
    counts = [c for c in trained.counts if run.config.split in ("all", c.split)]
    if not Evaluation(tuple(counts), True).reaches(run.config.target_success):
        missing = sum(c.problems - c.successes for c in counts)
        lines += [
            f"Not solved: the budget is used up and {missing} training problems still fail. Start a new run with one "
            "of:",
            f"  {', '.join(remedies(run.config))}",
        ]
    lines += [
        f"Next: modelnative evaluate {run.path}",
        f"      modelnative explain {run.path} {example(run.task(), evaluation.counts[-1].stage)}",
    ]
    return lines


def trained_part(evaluation: Evaluation, run: Run) -> Evaluation:
    """The counts of the stages that a run trained on; the other stages were tested only."""
    stages = list(dict.fromkeys(count.stage for count in evaluation.counts))[: run.config.stages or None]
    return Evaluation(tuple(count for count in evaluation.counts if count.stage in stages), evaluation.greedy)


def remedies(config: TrainConfig) -> list[str]:
    """Flags that may help a training that used up its budget."""
    flags = [
        f"--seed {config.seed + 1}",
        f"--updates {2 * config.updates}",
        f"--policy.width {2 * config.policy.width}",
    ]
    if config.minutes:
        flags.append(f"--minutes {2 * config.minutes:g}")
    if config.curriculum != "hints":
        flags.append("--curriculum hints")
    if not config.loss.hint_weight:
        flags.append("--loss.hint-weight 1")
    if config.policy.reader == "sum":
        flags.append("--policy.reader gru")
    return flags


def example(task: AnyTask, stage: str) -> str:
    """The flags of `explain` for one problem of a stage."""
    problems = task.sample(torch.tensor([task.spec.stage_index(stage)]), torch.Generator().manual_seed(0), "heldout")
    record = task.records(problems, task.begin(problems))[0]
    return f'--stage {stage} --problem "{record.get("problem", "…")}"'


# Trajectories


def verdict(explanation: Explanation) -> str:
    """The outcome of an episode, in one or two sentences."""
    rows, oracle, record = explanation.rows, explanation.oracle, explanation.record
    answer, target = record.get("answer"), record.get("target")
    first = next((t for t, row in enumerate(rows) if differs(row)), None)
    if oracle and first is None:
        return f"Right: it answered {answer}, the target, in {len(rows)} tokens: the oracle's program, token for token."
    if explanation.success:
        more = len(rows) - len(oracle)
        beside = f"{abs(more)} {'more' if more > 0 else 'fewer'} than" if more else "as many as"
        than_oracle = f", {beside} the oracle" if oracle else ""
        outcome = f"Right: it answered {answer}, the target, in {len(rows)} tokens{than_oracle}."
    elif explanation.truncated:
        outcome = f"Wrong: no answer within the horizon of {len(rows)} tokens; the target is {target}."
    elif answer is None:
        outcome = f"Wrong: it ended without an answer after {len(rows)} tokens; the target is {target}."
    else:
        outcome = f"Wrong: it answered {answer} after {len(rows)} tokens; the target is {target}."
    if first is None:
        return outcome
    instead = f"instead of {rows[first].oracle}" if rows[first].oracle else "past the end of the oracle's program"
    return f"{outcome} It first differs from the oracle at step {first + 1}: {rows[first].token} {instead}."


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
    """One row for each token."""
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
    """All built-in tasks, one line each."""
    shown = table("task", "description")
    for name, entry in task_entries().items():
        shown.add_row(Text(name, "bold"), entry.summary)
    return shown


def task_page(name: str) -> Iterator[RenderableType]:
    """One task: stages, an example with the oracle's program, vocabulary, options."""
    task = make_task(name)
    spec = task.spec
    documentation = inspect.getdoc(type(task)) or ""
    yield Text(f"{name}: {documentation.splitlines()[0] if documentation else ''}", "bold")
    stages = table("stage", "problems", "held out", "example", "program of the oracle", right=("problems", "held out"))
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
    meanings = arguments(documentation)
    for parameter in option_parameters(name).values():
        options.add_row(Text(parameter.name, "bold"), str(parameter.default), meanings.get(parameter.name, ""))
    if options.row_count:
        yield options
        first = next(iter(option_parameters(name).values()))
        yield f"Set them with: modelnative train --task {name} --options {first.name}={first.default}"


def arguments(documentation: str) -> dict[str, str]:
    r"""The section `Args:` of a Google-style docstring.

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
