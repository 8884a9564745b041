"""The results of a sweep: one row for each trial, and rows grouped over seeds."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modelnative.errors import UserError
from modelnative.evidence.statistics import median_interval, wilson
from modelnative.runs.files import write
from modelnative.runs.result import COSTS, Result
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.spec import Fields

MIN_SEEDS = 10  # for a claim


@dataclass(frozen=True)
class Row:
    """The result of one trial.

    Attributes:
        trial: its name.
        fields: values of the fields that vary in the sweep.
        seed: its seed.
        status: finished, failed or unfinished.
        reason: why it failed.
        solved: the greedy policy solved every problem of every stage, held-out ones included; None without a result.
        success: share of all problems that the greedy policy solved.
        rates: success rates by `greedy.STAGE`, `heldout.STAGE` (greedy) and `sampled.STAGE` (train and held-out).
        costs: updates, episodes, steps, seconds of training.
    """

    trial: str
    fields: Fields
    seed: int
    status: str
    reason: str = ""
    solved: bool | None = None
    success: float | None = None
    rates: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def cell(self) -> Fields:
        """The fields without the seed."""
        return {name: value for name, value in self.fields.items() if name != "seed"}

    @property
    def greedy(self) -> dict[str, float]:
        """The success rate of the greedy policy over all problems, by stage."""
        return {n.removeprefix("greedy."): rate for n, rate in self.rates.items() if n.startswith("greedy.")}


@dataclass(frozen=True)
class Cell:
    """All seeds of one combination of fields.

    Attributes:
        fields: the combination.
        rows: its finished and failed trials.
        solved, trials: number of trials that solved every problem, and of all; a failed trial counts as unsolved.
        interval: 95% Wilson interval of the share solved.
        success: median over finished trials of the share of problems solved; None if none has finished.
        seconds: seconds of training of each finished trial.
        median: of `seconds`; None if none has finished.
        median_interval: 95% bootstrap interval of the median; None for too few trials.
        censored: a finished trial used up its budget without solving every problem.
    """

    fields: Fields
    rows: tuple[Row, ...]
    solved: int
    trials: int
    interval: tuple[float, float]
    success: float | None
    seconds: tuple[float, ...]
    median: float | None
    median_interval: tuple[float, float] | None
    censored: bool

    @property
    def label(self) -> str:
        """The combination in one line."""
        return " ".join(f"{name}={text(value)}" for name, value in self.fields.items()) or "all trials"


def read_row(sweep: Sweep, trial: Trial, failure: str = "") -> Row:
    """The row of a trial, read from its folder. `failure` is the reason, if the trial has failed for good.

    A trial whose `result.json` is damaged has failed, too.
    """
    row = Row(trial.name, trial.fields, trial.config.seed, "failed" if failure else "unfinished", failure)
    path = sweep.run(trial).result_path
    if not path.exists():
        return row
    try:
        result = Result.read(path, sweep.resume_command)
    except UserError as error:
        return dataclasses.replace(row, status="failed", reason=str(error))
    greedy, sampled = result.evaluation, result.sampled
    totals = {
        f"{kind}.{stage}": evaluation.total(stage, split)
        for kind, evaluation, split in (
            ("greedy", greedy, None),
            ("heldout", greedy, "heldout"),
            ("sampled", sampled, None),
        )
        for stage in dict.fromkeys(count.stage for count in greedy.counts)
    }
    return dataclasses.replace(
        row,
        status="finished",
        reason="",
        solved=greedy.perfect,
        success=greedy.total().rate,
        rates={name: count.rate for name, count in totals.items() if count.rate is not None},
        costs=result.costs,
    )


def write_results(sweep: Sweep, rows: Sequence[Row]) -> None:
    """Write the table atomically.

    Raises:
        UserError: the disk is full or read-only. The old table is unchanged.
    """
    fields = dict.fromkeys(name for row in rows for name in row.cell)
    rates = dict.fromkeys(name for row in rows for name in row.rates)
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["trial", *fields, "seed", "status", "solved", "success", *rates, *COSTS, "reason"])
    for row in rows:
        own, shares, costs = map(row.cell.get, fields), map(row.rates.get, rates), map(row.costs.get, COSTS)
        values = [row.trial, *own, row.seed, row.status, row.solved, row.success, *shares, *costs, row.reason]
        table.writerow(["" if value is None else text(value) for value in values])
    write(sweep.results_path, buffer.getvalue().encode())


def cells(rows: Sequence[Row]) -> list[Cell]:
    """Finished and failed rows, grouped over seeds, in the order of the trials."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.status != "unfinished":
            groups.setdefault(json.dumps(row.cell, sort_keys=True), []).append(row)
    return [_cell(group) for group in groups.values()]


def _cell(rows: list[Row]) -> Cell:
    finished = [row for row in rows if row.status == "finished"]
    seconds = tuple(row.costs["seconds"] for row in finished)
    solved = sum(row.solved is True for row in rows)
    return Cell(
        fields=rows[0].cell,
        rows=tuple(rows),
        solved=solved,
        trials=len(rows),
        interval=wilson(solved, len(rows)),
        success=statistics.median(row.success or 0.0 for row in finished) if finished else None,
        seconds=seconds,
        median=statistics.median(seconds) if seconds else None,
        median_interval=median_interval(seconds),
        censored=any(row.solved is False for row in rows),
    )


def text(value: Any) -> str:
    """The value of a field as it is written in a spec."""
    return value if isinstance(value, str) else json.dumps(value)
