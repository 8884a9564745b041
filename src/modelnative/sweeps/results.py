"""What came out: a row a trial, and the rows of all seeds together."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modelnative.evidence.statistics import median_interval, wilson
from modelnative.runs.files import read_json, write
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.spec import Fields

COSTS = ("updates", "episodes", "steps", "seconds")
ENOUGH = 10  # seeds for a claim


@dataclass(frozen=True)
class Row:
    """One trial.

    Attributes:
        trial: its name.
        fields: the fields that the sweep tries, with its values.
        seed: its seed.
        status: finished, failed or unfinished.
        reason: why it failed.
        solved: every problem of every stage, held-out ones included, was solved greedily; None without a result.
        success: share of all problems solved greedily.
        rates: by `greedy.STAGE` (all problems), `heldout.STAGE` (greedily) and `sampled.STAGE` (all problems).
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
        """What it tries, but for the seed."""
        return {name: value for name, value in self.fields.items() if name != "seed"}


@dataclass(frozen=True)
class Cell:
    """All seeds of one combination of fields.

    Attributes:
        fields: the combination.
        rows: its finished and failed trials.
        solved, trials: how many of them solved everything; a failed trial has not.
        interval: 95%, Wilson, of the share solved.
        seconds: of training, of each finished trial.
        median: of `seconds`; None if none has finished.
        median_interval: 95%, bootstrapped; None if there are too few.
        censored: a finished trial did not solve everything: it stopped because its budget was spent.
    """

    fields: Fields
    rows: tuple[Row, ...]
    solved: int
    trials: int
    interval: tuple[float, float]
    seconds: tuple[float, ...]
    median: float | None
    median_interval: tuple[float, float] | None
    censored: bool

    @property
    def label(self) -> str:
        """The combination for people."""
        return " ".join(f"{name}={text(value)}" for name, value in self.fields.items()) or "all trials"


def read_row(sweep: Sweep, trial: Trial, failure: str = "") -> Row:
    """What a trial's folder says; `failure` is why it has no result, if it never will have one."""
    run = sweep.run(trial)
    if not run.result_path.exists():
        status = "failed" if failure else "unfinished"
        return Row(trial.name, trial.fields, trial.config.seed, status, failure)
    result = read_json(run.result_path)
    greedy, sampled = result["evaluation"]["counts"], result["sampled"]["counts"]
    stages = list(dict.fromkeys(count["stage"] for count in greedy))
    heldout = [count for count in greedy if count["split"] == "heldout"]
    rates = {
        f"{kind}.{stage}": _rate([count for count in counts if count["stage"] == stage])
        for kind, counts in (("greedy", greedy), ("heldout", heldout), ("sampled", sampled))
        for stage in stages
    }
    return Row(
        trial.name,
        trial.fields,
        trial.config.seed,
        "finished",
        solved=result["evaluation"]["perfect"],
        success=_rate(greedy),
        rates=rates,
        costs={name: result[name] for name in COSTS},
    )


def write_results(sweep: Sweep, rows: Sequence[Row]) -> None:
    """Write the table, as one step.

    Raises:
        UserError: the disk is full or read-only; the table before stands.
    """
    fields = list(dict.fromkeys(name for row in rows for name in row.cell))
    rates = list(dict.fromkeys(name for row in rows for name in row.rates))
    said = io.StringIO()
    table = csv.writer(said, lineterminator="\n")
    table.writerow(["trial", *fields, "seed", "status", "solved", "success", *rates, *COSTS, "reason"])
    for row in rows:
        table.writerow(
            [
                row.trial,
                *("" if row.cell[name] is None else text(row.cell[name]) for name in fields),
                row.seed,
                row.status,
                *("" if value is None else text(value) for value in (row.solved, row.success)),
                *(row.rates.get(name, "") for name in rates),
                *(row.costs.get(name, "") for name in COSTS),
                row.reason,
            ]
        )
    write(sweep.results_path, said.getvalue().encode())


def cells(rows: Sequence[Row]) -> list[Cell]:
    """The rows that have ended, grouped over seeds, in the order of the plan."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.status != "unfinished":
            groups.setdefault(json.dumps(row.cell, sort_keys=True), []).append(row)
    return [_cell(group) for group in groups.values()]


def _cell(rows: list[Row]) -> Cell:
    seconds = tuple(row.costs["seconds"] for row in rows if row.status == "finished")
    solved = sum(row.solved is True for row in rows)
    return Cell(
        fields=rows[0].cell,
        rows=tuple(rows),
        solved=solved,
        trials=len(rows),
        interval=wilson(solved, len(rows)),
        seconds=seconds,
        median=statistics.median(seconds) if seconds else None,
        median_interval=median_interval(seconds),
        censored=any(row.solved is False for row in rows),
    )


def text(value: Any) -> str:
    """A field's value as a spec says it."""
    return value if isinstance(value, str) else json.dumps(value)


def _rate(counts: list[dict[str, Any]]) -> float:
    problems = sum(count["problems"] for count in counts)
    return sum(count["successes"] for count in counts) / problems if problems else 1.0
