"""A sweep survives `kill -9` of a trial process and of its own process, and an end at any of its steps."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sweeping import ROOT, TINY, UPDATES, environment, fingerprint, processes, wait_for

from modelnative.runs.training import Training
from modelnative.sweeps.folder import Sweep

TRIALS = 20


def running(sweep: Sweep) -> list[str]:
    """Names of the trials that are training."""
    runs = [(trial.name, sweep.run(trial)) for trial in sweep.trials]
    return [name for name, run in runs if not run.result_path.exists() and len(run.checkpoints()) >= 2]


def kill_one(folder: Path) -> str:
    """Kill the process of a running trial; returns the name of the trial."""

    def victim() -> tuple[str, int] | None:
        names = running(Sweep.open(folder))
        for pid in processes(folder):
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            for name in names:
                if name in arguments:
                    return name, pid
        return None

    name, pid = wait_for(victim)
    os.kill(pid, signal.SIGKILL)
    return str(name)


@pytest.mark.slow
@pytest.mark.parametrize("on", ["local", "ray"])
def test_twenty_trials_survive(on: str, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    if on == "ray" and not importlib.util.find_spec("ray"):
        pytest.skip("needs the extra: ray")
    spec, folder = tmp_path / "spec.json", tmp_path / "sweep"
    grid = {"algorithm": ["ppo", "grpo"]}
    spec.write_text(json.dumps({"seeds": TRIALS // 2, "base": {**TINY, "updates": UPDATES}, "grid": grid}))
    command = ["sweep", str(spec), "--out", str(folder), "--jobs", "2", "--on", on]

    driver = start(*command)
    wait_for(lambda: Sweep.exists(folder))
    killed = kill_one(folder)
    sweep = Sweep.open(folder)
    assert len(sweep.trials) == TRIALS
    wait_for(lambda: sum(map(sweep.finished, sweep.trials)) >= 3)
    wait_for(lambda: running(sweep))
    driver.send_signal(signal.SIGKILL)
    first = driver.communicate()[0]
    assert f"crashed  {killed}: killed by SIGKILL" in first

    wait_for(lambda: not processes(folder), 30)  # no trial outlives its sweep
    done = {
        trial.name: sweep.run(trial).result_path.stat().st_mtime_ns for trial in sweep.trials if sweep.finished(trial)
    }
    assert 3 <= len(done) < TRIALS

    again = start(*command)
    kill_one(folder)
    out, err = again.communicate(timeout=600)
    assert again.returncode == 0, out + err
    assert f"{len(done)} of them finished already" in out
    assert "from update" in out, "trials with a checkpoint were continued"
    for name, time in done.items():
        assert f"start    {name}" not in out
        assert sweep.run(sweep.trial(name)).result_path.stat().st_mtime_ns == time, "it was not repeated"
    with open(sweep.results_path, newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["finished"] * TRIALS

    untouched = Training.start(tmp_path / "untouched", sweep.trial(killed).config)
    list(untouched.events())
    assert fingerprint(untouched.run) == fingerprint(sweep.run(sweep.trial(killed)))


@pytest.mark.parametrize("trials", ["fake", "real"])
@pytest.mark.slow
def test_a_sweep_that_is_killed_at_any_step_ends_with_the_same_table(trials: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "killed_sweep.py"), str(tmp_path), trials]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= (20 if trials == "fake" else 4), "how often it was killed"
