"""Several seeds of one configuration: each is an ordinary run, and all of them are counted."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from sweeping import TINY, UPDATES, fingerprint, processes, updates, when

import modelnative as mn
from modelnative.errors import UserError
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio.report import write_sweep_report
from modelnative.sweeps.events import SweepEvent, SweepFinished, SweepInterrupted, SweepStopping, TrialCrashed
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.options import SweepOptions, run_sweep
from modelnative.sweeps.results import Row, read_row
from modelnative.sweeps.spec import parse_spec
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe


def config(**changes: object) -> TrainConfig:
    return with_fields(recipe(), {**TINY, **changes})


def follow(sweep: Sweep) -> list[SweepEvent]:
    """Run a sweep with the reports that `train(seeds=...)` writes."""
    events = list(run_sweep(sweep, SweepOptions(on="local"), "modelnative.studio.report:write_report"))
    for event in events:
        write_sweep_report(event)
    return events


def rows(sweep: Sweep) -> list[Row]:
    return [read_row(sweep, trial) for trial in sweep.trials]


def alone(path: Path, seed: int, **changes: object) -> Run:
    """The run of one seed, trained by itself with one thread."""
    training = Training.start(path, config(seed=seed, threads=1, **changes))
    list(training.events())
    return training.run


def test_each_seed_is_a_run_of_its_own_with_a_report_of_all(tmp_path: Path) -> None:
    sweep = Sweep.of_seeds(config(seed=5), 3, tmp_path / "seeds")
    follow(sweep)
    assert [row.seed for row in rows(sweep)] == [5, 6, 7]
    assert [row.status for row in rows(sweep)] == ["finished"] * 3
    for row in rows(sweep):
        run = Run.open(tmp_path / "seeds" / "trials" / f"seed-{row.seed}")
        assert len(run.metrics()) == row.costs["updates"] == TINY["updates"]
        assert fingerprint(run) == fingerprint(alone(tmp_path / f"alone-{row.seed}", row.seed))
        assert (run.path / "report.html").exists()
    page = (tmp_path / "seeds" / "report.html").read_text()
    assert "of 3 seeds solved every problem" in page
    assert all(f"trials/seed-{seed}/report.html" in page for seed in (5, 6, 7))
    assert sweep.resume_command == f"modelnative resume {tmp_path / 'seeds'} --trust worlds"


def test_ctrl_c_stops_every_seed_and_resume_continues(tmp_path: Path) -> None:
    changes = {"updates": UPDATES, "checkpoint_every": 10 * UPDATES}  # no checkpoint but that of the interruption
    sweep = Sweep.of_seeds(config(**changes), 2, tmp_path / "seeds")
    runs = [sweep.run(trial) for trial in sweep.trials]
    when(lambda: all(updates(run) >= 3 for run in runs), lambda: os.kill(os.getpid(), signal.SIGINT))
    events = follow(sweep)
    assert isinstance(events[-1], SweepInterrupted)
    assert any(isinstance(event, SweepStopping) for event in events)
    assert not processes(sweep.path)
    for run in runs:
        assert run.result_path.exists() or int(run.checkpoints()[-1].stem) == len(run.metrics()) >= 3
    follow(Sweep.open(sweep.path))
    assert [row.costs["updates"] for row in rows(sweep)] == [UPDATES, UPDATES]
    assert fingerprint(runs[1]) == fingerprint(alone(tmp_path / "alone", 1, **changes))


@pytest.mark.slow
def test_a_crashed_seed_is_retried(tmp_path: Path) -> None:
    sweep = Sweep.of_seeds(config(updates=UPDATES), 1, tmp_path / "seeds")
    run = sweep.run(sweep.trials[0])
    when(lambda: updates(run) >= 3, lambda: os.kill(processes(sweep.path)[0], signal.SIGKILL))
    assert [event.reason for event in follow(sweep) if isinstance(event, TrialCrashed)] == ["killed by SIGKILL"]
    assert [row.status for row in rows(sweep)] == ["finished"]


@pytest.mark.slow
def test_a_seed_that_fails_is_named_and_counted_and_the_others_go_on(tmp_path: Path) -> None:
    planned = Sweep.of_seeds(config(core="transformer"), 2, tmp_path / "seeds")
    first, second = planned.trials
    diverging = with_fields(first.config, {"optimizer": {"learning_rate": 1000.0}})
    sweep = replace(planned, trials=(replace(first, config=diverging), second))
    for again in (sweep, sweep):  # a resumed sweep retries it
        last = follow(again)[-1]
        assert isinstance(last, SweepFinished)
        assert [row.status for row in last.rows] == ["failed", "finished"]
        assert last.rows[0].trial == "seed-0"
        assert "made the numbers overflow" in last.rows[0].reason
    page = (tmp_path / "seeds" / "report.html").read_text()
    assert "of 2 seeds solved every problem, 1 failed" in page
    assert page.count("made the numbers overflow") == 1


def test_a_kill_before_the_plan_is_written_leaves_a_folder_that_can_be_used(tmp_path: Path) -> None:
    for begin in (lambda: Sweep.of_seeds(config(), 2, tmp_path), lambda: Sweep.planned(tmp_path, parse_spec({}))):
        (tmp_path / "sweep.json.partial").write_text('{"format": "mod')
        begin().write()
        assert len(Sweep.open(tmp_path).trials) in (1, 2)
        (tmp_path / "sweep.json").unlink()
        (tmp_path / "notes.txt").touch()
        with pytest.raises(UserError, match="exists already"):
            begin()
        (tmp_path / "notes.txt").unlink()


@pytest.mark.parametrize(
    ("changes", "seeds", "message"),
    [
        ({}, 0, "seeds: 0 is not allowed; expected from 1 to 10,000"),
        ({}, 10**9, "seeds: 1000000000 is not allowed"),
        ({"seed": 2**31 - 2}, 3, "seed: 2147483648 is not allowed"),
        ({"episodes": 0}, 2, "episodes: 0 is not allowed"),
        ({"seed": 2**31 - 1}, 2, "seed: 2147483648 is not allowed"),
    ],
)
def test_bad_arguments_write_nothing(changes: dict[str, object], seeds: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        Sweep.of_seeds(config(**changes), seeds, tmp_path / "seeds")
    assert not (tmp_path / "seeds").exists()


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"exists already; choose another folder, or continue it with: modelnative res"):
        Sweep.of_seeds(config(), 2, tmp_path)


def test_a_command_for_one_run_names_the_runs_of_the_folder(tmp_path: Path) -> None:
    sweep = Sweep.of_seeds(config(), 12, tmp_path / "ten")
    sweep.write()
    for trial in sweep.trials:
        Run.create(sweep.run(trial).path, trial.config)
    first = ", ".join(str(tmp_path / "ten" / "trials" / f"seed-{seed}") for seed in range(3))
    with pytest.raises(UserError, match=re.escape(f"ten' holds 12 runs; name one of them: {first}, …")):
        mn.evaluate(sweep.path)


def test_the_plan_survives_a_round_trip(tmp_path: Path) -> None:
    fields = {"options": {"feedback": "none"}, "policy": {"width": 8, "layers": None}, "threads": 2}
    sweep = Sweep.of_seeds(config(**fields), 2, tmp_path / "seeds")
    sweep.write()
    assert Sweep.open(sweep.path) == sweep
    assert sweep.seeds_only
    assert sweep.trials[1].config == config(**fields, seed=1)
