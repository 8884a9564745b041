"""The process of a trial: its exit code, and the reason in its log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sweeping import TINY

from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.sweeps import worker
from modelnative.sweeps.executors import Outcome, TrialProcess
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.spec import parse_spec


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setattr(worker, "_stop_with_parent", lambda: None)  # standard input of the tests is no such pipe
    made = Sweep.planned(tmp_path / "sweep", parse_spec({"base": TINY}))
    made.write()
    return made


def work(sweep: Sweep, name: str = "", after_run: str = "builtins:id") -> int:
    return worker.main([str(sweep.path), name or sweep.trials[0].name, after_run])


def test_it_trains_then_calls_the_function(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Run] = []
    monkeypatch.setattr(worker, "_recorded", seen.append, raising=False)
    assert work(sweep, after_run="modelnative.sweeps.worker:_recorded") == worker.FINISHED
    assert [run.path for run in seen] == [sweep.run(sweep.trials[0]).path]
    assert seen[0].result_path.exists()
    assert work(sweep, after_run="modelnative.sweeps.worker:_recorded") == worker.FINISHED
    assert len(seen) == 2, "a finished trial is not trained again, but the function may not have been called yet"


def test_a_refusal_is_one_line(sweep: Sweep, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert work(sweep, name="z") == worker.REFUSED
    assert "trial: 'z' is not one of the sweep" in capsys.readouterr().err
    assert worker.main([str(tmp_path / "nowhere"), "z", "builtins:id"]) == worker.REFUSED
    assert "expected a folder that all machines share" in capsys.readouterr().err


def test_a_run_that_is_not_the_planned_one_is_refused(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    other = parse_spec({"base": {**TINY, "updates": 9}})
    Training.start(sweep.run(sweep.trials[0]).path, Sweep.planned(sweep.path.parent / "o", other).trials[0].config)
    assert work(sweep) == worker.REFUSED
    assert "not the configuration that the sweep planned for it" in capsys.readouterr().err


def test_the_reason_of_a_crash_is_the_last_line(sweep: Sweep) -> None:
    process = TrialProcess(sweep.path, sweep.trials[0], "nowhere:nothing")
    outcome = None
    while outcome is None:
        outcome = process.wait(60)
    assert outcome == Outcome(1, "ModuleNotFoundError: No module named 'nowhere'")
    assert not outcome.refused
    assert sweep.finished(sweep.trials[0]), "the training itself is finished"
    assert process.log.read_text().startswith("Traceback")


def test_a_trial_is_alone_whatever_a_launcher_has_set(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    process = TrialProcess(sweep.path, sweep.trials[0], "builtins:id")
    while (outcome := process.wait(60)) is None:
        pass
    assert outcome.code == 0, outcome.reason
    assert sweep.finished(sweep.trials[0])


def test_what_the_task_has_to_say_is_kept_for_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_stop_with_parent", lambda: None)
    base = {**TINY, "task": "toolbox:partly_broken", "updates": 1}
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"base": base}))
    sweep.write()
    assert work(sweep) == worker.FINISHED
    (trial,) = sweep.trials
    told = "\n".join(sweep.notes(trial))
    assert re.search(r"^tool mistaken: \d+ of \d+ calls failed: NameError: name 'rond' is not defined", told, re.M)
