"""The table of results, and the groups over seeds."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from sweeping import TINY, write_result

from modelnative.evidence.statistics import median_interval, wilson
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import cells, read_row, write_results
from modelnative.sweeps.spec import parse_spec


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Two cells of seven seeds. First: six solved. Second: two finished, not solved."""
    table = {"seeds": 7, "base": TINY, "grid": {"policy.width": [8, 16]}, "trials": [{"options.feedback": "none"}]}
    made = Sweep.planned(tmp_path / "sweep", parse_spec(table))
    made.write()
    for trial in made.trials:
        width, seed = trial.config.policy.width, trial.config.seed
        if trial.fields["options.feedback"] is None and width == 8 and seed < 6:
            write_result(made.run(trial), seconds=float(seed))
        elif trial.fields["options.feedback"] is None and width == 16 and seed < 2:
            write_result(made.run(trial), share=0.5)
    return made


def test_a_row_has_the_result_of_a_trial(sweep: Sweep) -> None:
    solved, unsolved = (read_row(sweep, trial) for trial in sweep.trials[:2])
    assert (solved.status, solved.solved, solved.success) == ("finished", True, 1.0)
    assert solved.costs == {"updates": 3, "episodes": 48, "steps": 100, "seconds": 0.0}
    assert (unsolved.solved, unsolved.success) == (False, 0.5)
    assert unsolved.rates == {f"{kind}.{s}": 0.5 for kind in ("greedy", "heldout", "sampled") for s in ("T0", "T1")}
    assert read_row(sweep, sweep.trials[2]).status == "unfinished"
    failed = read_row(sweep, sweep.trials[2], failure="it overflowed")
    assert (failed.status, failed.reason, failed.solved) == ("failed", "it overflowed", None)


def test_the_table(sweep: Sweep) -> None:
    write_results(sweep, [read_row(sweep, trial) for trial in sweep.trials])
    with open(sweep.results_path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [trial.name for trial in sweep.trials]
    assert list(rows[0]) == [
        *("trial", "policy.width", "options.feedback", "seed", "status", "solved", "success"),
        *(f"{kind}.{stage}" for kind in ("greedy", "heldout", "sampled") for stage in ("T0", "T1")),
        *("updates", "episodes", "steps", "seconds", "reason"),
    ]
    assert (rows[0]["policy.width"], rows[0]["options.feedback"], rows[0]["solved"]) == ("8", "", "true")
    assert (rows[2]["options.feedback"], rows[2]["status"], rows[2]["solved"]) == ("none", "unfinished", "")


def test_cells_group_over_seeds_and_a_failure_is_not_solved(sweep: Sweep) -> None:
    failures = {trial.name: "diverged" for trial in sweep.trials if trial.config.seed == 6}
    rows = [read_row(sweep, trial, failures.get(trial.name, "")) for trial in sweep.trials]
    first, second, third = cells(rows)
    assert first.fields == {"policy.width": 8, "options.feedback": None}
    assert first.label == "policy.width=8 options.feedback=null"
    assert (first.solved, first.trials, first.interval) == (6, 7, wilson(6, 7))
    assert (first.seconds, first.median) == ((0.0, 1.0, 2.0, 3.0, 4.0, 5.0), 2.5)
    assert first.median_interval == median_interval(first.seconds)
    assert not first.censored
    assert (first.success, second.success, third.success) == (1.0, 0.5, None)
    assert (second.solved, second.trials, second.median_interval, second.censored) == (0, 3, None, True)
    assert (third.solved, third.trials, third.median) == (0, 1, None)


def test_perfect_success_has_an_interval(sweep: Sweep) -> None:
    (cell, *_) = cells([read_row(sweep, trial) for trial in sweep.trials])
    assert (cell.solved, cell.trials) == (6, 6)
    assert cell.interval[0] < 0.65
    assert cell.interval[1] == 1.0
