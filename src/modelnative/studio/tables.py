"""Tables for the terminal: results, trajectories, tasks."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement, measure_renderables
from rich.table import Table
from rich.text import Text

from modelnative.errors import UserError
from modelnative.evidence.evaluate import Count, Evaluation, floor, interval
from modelnative.evidence.explain import ExplainedToken, Explanation, oracle_tokens
from modelnative.evidence.problem_set import problem_text, unseen_problems
from modelnative.evidence.statistics import wilson
from modelnative.runs.events import Finished
from modelnative.runs.run import Run
from modelnative.tasks import make_task, option_parameters, task_entries
from modelnative.tasks.contract.task import AnyTask
from modelnative.tasks.tools.tool import argument_docs
from modelnative.training.config import TrainConfig, with_fields

PIPE_WIDTH = 120  # columns, if standard output is a file or a pipe


class StandardOutput(Console):
    """Standard output. Whoever reads it may leave: what is printed afterwards is lost, and a training goes on."""

    def on_broken_pipe(self) -> None:
        """Discard all further output, instead of leaving the program as rich does."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Console:
    """Standard output. A file or a pipe has a fixed width, unless COLUMNS says one.

    Text is shown as it is: names and problems of a user's task may look like markup. Colours are as FORCE_COLOR,
    NO_COLOR and the terminal say; only a terminal is drawn on.
    """
    is_terminal, environment = sys.stdout.isatty(), dict(os.environ)
    columns = environment.pop("COLUMNS", "")
    width = int(columns) if re.fullmatch("[1-9][0-9]{0,3}", columns) else None if is_terminal else PIPE_WIDTH
    return StandardOutput(
        file=sys.stdout,
        highlight=False,
        markup=False,
        emoji=False,
        width=width,
        force_interactive=None if is_terminal else False,
        _environ=environment,
    )


def show(parts: Iterable[RenderableType]) -> None:
    """Print the parts of a page on standard output."""
    for part in parts:
        console().print(Fitted(part) if isinstance(part, Table) else part)


class Fitted:
    """Shows the first of several tables whose words fit into the width of the terminal, else the last."""

    def __init__(self, *tables: Table) -> None:
        self.tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table for this width. Rich alone would break words that fit."""
        unlimited = options.update(max_width=10_000)
        for table in self.tables:
            columns = [(measure_renderables(console, unlimited, [c.header, *c.cells]), c) for c in table.columns]
            spare = options.max_width - Measurement.get(console, unlimited, table).minimum
            if spare >= 0:
                columns.sort(key=lambda pair: pair[0].span)  # those that lack little get it first
                for place, (measured, column) in enumerate(columns):
                    more = min(measured.span, spare // (len(columns) - place))
                    column.width = measured.minimum + more
                    spare -= more
                break
        yield table


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table in the common style."""
    empty = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        # A cell that does not fit is wrapped and not cut.
        empty.add_column(column, justify="right" if column in right else "left", overflow="fold")
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
    if not count.problems:
        return "–"
    if exact:
        return text
    return f"{text} {interval(*wilson(count.successes, count.problems))}"


def finished(end: Finished) -> list[str]:
    """The last lines of a training; the first is the verdict."""
    run, evaluation = end.run, end.evaluation
    report, unwritten = run.path / "report.html", f"not written; write it with: {run.command('report')}"
    splits = {"train": "train split", "heldout": "held-out   "}
    lines = [evaluation.line(), ""]
    for split, name in splits.items():
        counts = [c for c in evaluation.counts if c.split == split]
        if any(count.problems for count in counts):
            unseen = "never seen in training" if split == "heldout" and run.config.split == "train" else ""
            lines.append(f"  {name}  {Evaluation(tuple(counts), greedy=True).line()} {unseen}".rstrip())
        else:
            lines.append(f"  {name}  none: the task has too few problems")
    lines += [
        f"  sampled      {end.sampled.line()} at temperature 1",
        f"  cost         {end.seconds:.1f} s, {end.updates} updates, {end.episodes:,} episodes, {end.steps:,} steps",
        "",
        f"  run          {run.path}",
        f"  report       {report if report.exists() else unwritten}",
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
            f"  {', '.join(remedies(run.config, end.updates, run.task().has_oracle))}",
        ]
    lines += [
        f"Next: {run.command('evaluate')}",
        f"      {run.command('explain', example(run.task(), evaluation.counts[-1].stage))}",
    ]
    return lines


def trained_part(evaluation: Evaluation, run: Run) -> Evaluation:
    """The counts of the stages that a run trained on; the other stages were tested only."""
    stages = list(dict.fromkeys(count.stage for count in evaluation.counts))[: run.config.stages or None]
    return Evaluation(tuple(count for count in evaluation.counts if count.stage in stages), evaluation.greedy)


def remedies(config: TrainConfig, updates: int, has_oracle: bool) -> list[str]:
    """Flags that may help a training that used up its budget. None has the value that the training had.

    Args:
        config: of the training.
        updates: that it made; fewer than its budget if the minutes were used up.
        has_oracle: whether its task can give hints.
    """
    out_of_time = bool(config.minutes) and updates < config.updates
    wanted: dict[str, tuple[Any, bool]] = {
        "seed": (config.seed + 1, True),
        "updates": (2 * config.updates, not out_of_time),
        "minutes": (2 * config.minutes, out_of_time),
        "policy.width": (2 * config.policy.width, True),
        "curriculum": ("hints", has_oracle),
        "loss.hint_weight": (1.0, has_oracle and config.curriculum == "hints"),
        "policy.reader": ("gru", True),
    }
    flags = []
    for name, (value, helps) in wanted.items():
        group, _, field = name.rpartition(".")
        try:
            changed = with_fields(config, {group: {field: value}} if group else {field: value})
        except UserError:  # such as a width above the largest
            continue
        if helps and changed != config:
            flags.append(f"--{name.replace('_', '-')} {format(value, 'g') if isinstance(value, float) else value}")
    return flags


def example(task: AnyTask, stage: str) -> str:
    """The flags of `explain` for one problem of a stage."""
    problems = unseen_problems(task, task.spec.stage_index(stage), 1)
    record = task.records(problems, task.begin(problems))[0]
    return f"--stage {shlex.quote(stage)} --problem {shlex.quote(str(record.get('problem', '…')))}"


# Trajectories


def verdict(explanation: Explanation) -> str:
    """The outcome of an episode, in one or two sentences."""
    rows, oracle, record = explanation.rows, explanation.oracle, explanation.record
    answer, target = record.get("answer"), record.get("target")
    first = explanation.departure
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


def explanation_page(explanation: Explanation) -> Iterator[RenderableType]:
    """The problem, the trajectory and the verdict."""
    yield Text(f"{explanation.stage}: {explanation.problem}", "bold")
    yield trajectory(explanation)
    yield Text(verdict(explanation), "bold green" if explanation.success else "bold red")


def trajectory(explanation: Explanation) -> Fitted:
    """One row for each token. Where the terminal is narrow, registers share a column, then numbers are left out."""
    return Fitted(*(_trajectory(explanation, *choice) for choice in ((True, False), (True, True), (False, True))))


def _trajectory(explanation: Explanation, with_numbers: bool, joined: bool) -> Table:
    numbers = ("value", "entropy") if with_numbers else ()
    names = ["registers"] if joined else list(explanation.rows[0].registers)
    columns = ("step", "token", "prob.", *numbers, "copied", *names, "oracle", "")
    shown = table(*columns, right=("step", "prob.", *numbers, *([] if joined else names)))
    for step, row in enumerate(explanation.rows, 1):
        values = (f"{row.value:.2f}", f"{row.entropy:.3f}") if with_numbers else ()
        registers = list(row.registers.values())
        if joined:
            registers = [", ".join(f"{name} {value}" for name, value in row.registers.items() if value)]
        written = Text(row.token, "bold cyan" if row.source else "bold")
        start = (str(step), written, f"{row.probability:.3f}", *values, Text(copied(row), "cyan"))
        end = (row.oracle or "", ", ".join(marks(row)))
        shown.add_row(*start, *registers, *end, style="yellow" if differs(row) else "" if row.valid else "red")
    for step, token in enumerate(explanation.oracle[len(explanation.rows) :], len(explanation.rows) + 1):
        shown.add_row(str(step), *[""] * (len(columns) - 3), token, "", style="dim")
    return shown


# Tasks


def task_list() -> Table:
    """All built-in tasks, one line each."""
    shown = table("task", "description")
    for name, entry in task_entries().items():
        shown.add_row(Text(name, "bold"), entry.summary)
    shown.add_row(Text("NAME+NAME", "bold"), "several of these for one network, such as arithmetic+recall+hops")
    shown.add_row(Text("gymnasium:ID", "bold"), "any environment of Gymnasium, such as gymnasium:CartPole-v1")
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
        words = " ".join(oracle_tokens(task, problem))
        solvable = not spec.solvable or spec.solvable[s]
        stages.add_row(
            Text(stage, "bold"),
            _number(lambda s=s: task.count(s)),  # type: ignore[misc]
            _number(lambda s=s: task.count(s, "heldout")),  # type: ignore[misc]
            problem_text(task, problem, 0),
            words if solvable else f"{words} (not always right)",
        )
    yield stages
    yield f"vocabulary  {' '.join(spec.vocabulary)}"
    yield f"horizon     {spec.horizon} tokens; feedback after each: {spec.feedback_width or 'no'} tokens"
    options = table("option", "default", "meaning")
    meanings = argument_docs(documentation)
    for parameter in option_parameters(name).values():
        options.add_row(Text(parameter.name, "bold"), str(parameter.default), meanings.get(parameter.name, ""))
    if options.row_count:
        yield options
        first = next(iter(option_parameters(name).values()))
        option = shlex.quote(f"{first.name}={first.default}")
        yield f"Set them with: modelnative train --task {name} --options {option}"


def _number(count: Callable[[], int]) -> str:
    try:
        return f"{count():,}"
    except UserError:
        return "endless"
