"""Sweeps and folders of `train --seeds`: their trials, grouped over seeds, with intervals."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from modelnative.errors import UserError, shown
from modelnative.evidence.comparison import group_score
from modelnative.evidence.statistics import median_interval
from modelnative.studio.server.library import GoneError, Library, bounded_json
from modelnative.sweeps.comparison import compare_groups
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.groups import RATES, Group
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.results import Cell, Row, cells, read_row

METRICS = ("success", "updates", "seconds")
MOST_NOTES = 20


class Sweeps:
    """Reads the sweeps of a library.

    Args:
        library: where they are.
    """

    def __init__(self, library: Library) -> None:
        self.library = library

    def one(self, name: str) -> dict[str, Any]:
        """A sweep: a row for each trial, and a group for each combination of fields, with intervals over seeds.

        Raises:
            UserError: it is gone, damaged, or names a module that is not trusted.
        """
        path = self.library.folder(name, "sweep.json")
        bounded_json(path / "sweep.json")  # its size
        sweep, notes = Sweep.open(path), []
        rows: list[Row] = []
        for trial in sweep.trials:
            try:
                rows.append(self._row(name, sweep, trial))
            except UserError as error:
                notes.append(str(error))
        groups = cells(rows)
        against = {metric: _pairs(groups, metric) for metric in METRICS}
        return {
            "id": name,
            "groups": [_group(cell) for cell in groups],
            "against": {metric: pairs for metric, (pairs, _) in against.items()},
            "trials": [self._trial(name, row) for row in rows],
            "notes": list(dict.fromkeys([*notes, *(note for _, more in against.values() for note in more)]))[
                :MOST_NOTES
            ],
            "resume": sweep.resume_command,
        }

    def _row(self, name: str, sweep: Sweep, trial: Trial) -> Row:
        """The result of a trial; what sweep.json calls it must not lead out of the folder."""
        if self.library.inside(f"{name}/trials/{trial.name}") != sweep.run(trial).path:  # such as an absolute name
            raise GoneError(f"trial: {shown(trial.name)} is not in this folder")
        if not (sweep.run(trial).path / "config.json").is_file():
            return Row(trial.name, trial.fields, trial.config.seed, "unfinished")
        self.library.folder(f"{name}/trials/{trial.name}")
        return read_row(sweep, trial)

    def _trial(self, name: str, row: Row) -> dict[str, Any]:
        run = f"{name}/trials/{row.trial}" if name != "." else f"trials/{row.trial}"
        costs = {metric: row.costs.get(metric) for metric in METRICS[1:]}
        return {
            "run": run,
            "begun": (self.library.root / run / "config.json").is_file(),
            "trial": row.trial,
            "status": row.status,
            "reason": row.reason[:500],
            "solved": row.solved,
            "success": row.success,
            **costs,
        }


def _group(cell: Cell) -> dict[str, Any]:
    """A combination of fields: solved trials with a Wilson interval; of each metric the median and the IQM."""
    metrics = {}
    for metric in METRICS:
        values = _values(cell.rows, metric)
        if not values:
            continue
        bounds = (0.0, 1.0) if metric in RATES else None
        score = group_score([values], bounds=bounds)
        metrics[metric] = {
            "values": values,
            "median": statistics.median(values),
            "interval": median_interval(values),
            "iqm": dataclasses.asdict(score),
        }
    return {
        "label": cell.label,
        "solved": cell.solved,
        "trials": cell.trials,
        "interval": cell.interval,
        "censored": cell.censored,
        "metrics": metrics,
    }


def _values(rows: Sequence[Row], metric: str) -> list[float]:
    found = (row.success if metric == "success" else row.costs.get(metric) for row in rows)
    return [float(value) for value in found if value is not None and math.isfinite(value)]


def _pairs(groups: Sequence[Cell], metric: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Each group against the first, as `modelnative compare` has it; and what to know before a claim is made."""
    made = []
    for cell in groups:
        values = _values(cell.rows, metric)
        unsolved = sum(row.solved is False for row in cell.rows)
        failed = cell.trials - len(values)
        made.append(Group(cell.label, {"": values} if values else {}, {"": []}, unsolved, failed))
    made = [group for group in made if group.scores]
    if not made:
        return [], []
    found = compare_groups(made, metric)
    pairs = [{**dataclasses.asdict(pair), "level": found.level} for pair in found.pairs]
    return pairs, list(found.notes)
