"""A trial's own process: its exit code says how it ended, its log why."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweeping import TINY

from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.sweeps import worker
from modelnative.sweeps.executors import Outcome, Process
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.spec import parse_spec


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setattr(worker, "_follow_leader", lambda: None)  # this process's standard input is not a leader
    made = Sweep.planned(tmp_path / "sweep", parse_spec({"base": TINY}))
    made.write()
    return made


def work(sweep: Sweep, name: str = "", afterwards: str = "builtins:id") -> int:
    return worker.main([str(sweep.path), name or sweep.trials[0].name, afterwards])


def test_it_trains_then_does_what_is_to_be_done(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Run] = []
    monkeypatch.setattr(worker, "_noted", seen.append, raising=False)
    assert work(sweep, afterwards="modelnative.sweeps.worker:_noted") == worker.FINISHED
    assert [run.path for run in seen] == [sweep.run(sweep.trials[0]).path]
    assert seen[0].result_path.exists()
    assert work(sweep, afterwards="modelnative.sweeps.worker:_noted") == worker.FINISHED
    assert len(seen) == 2, "a finished trial is not trained again; what comes after may have been missed"


def test_what_it_refuses_is_one_line(sweep: Sweep, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert work(sweep, name="z") == worker.REFUSED
    assert "trial: 'z' is not one of the sweep" in capsys.readouterr().err
    assert worker.main([str(tmp_path / "nowhere"), "z", "builtins:id"]) == worker.REFUSED
    assert "expected a folder that all machines share" in capsys.readouterr().err


def test_a_run_that_is_not_the_planned_one_is_refused(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    other = parse_spec({"base": {**TINY, "updates": 9}})
    Training.start(sweep.run(sweep.trials[0]).path, Sweep.planned(sweep.path.parent / "o", other).trials[0].config)
    assert work(sweep) == worker.REFUSED
    assert "not the configuration that the sweep planned for it" in capsys.readouterr().err


def test_a_process_that_crashes_says_its_last_line(sweep: Sweep, tmp_path: Path) -> None:
    process = Process(sweep.path, sweep.trials[0].name, tmp_path / "log", 1, "nowhere:nothing")
    outcome = None
    while outcome is None:
        outcome = process.wait(60)
    assert outcome == Outcome(1, "ModuleNotFoundError: No module named 'nowhere'")
    assert not outcome.refused
    assert sweep.finished(sweep.trials[0]), "which is as good as finished"
    assert (tmp_path / "log").read_text().startswith("Traceback")
