"""The scheduler: order, retries and events; first with a fake executor, then with real processes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sweeping import TINY, UPDATES, environment, fingerprint, processes, updates, wait_for, when, write_result

import modelnative as mn
from modelnative.errors import UserError
from modelnative.runs.files import FORMAT
from modelnative.runs.training import Training
from modelnative.studio.sweep import SweepView
from modelnative.sweeps.events import (
    SweepEvent,
    SweepFinished,
    SweepInterrupted,
    SweepProgress,
    SweepStarted,
    SweepStopping,
    TaskNoted,
    TrialCrashed,
    TrialFailed,
    TrialFinished,
    TrialProgress,
    TrialStarted,
)
from modelnative.sweeps.executors import Outcome
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.options import SweepOptions, run_sweep
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.results import cells
from modelnative.sweeps.scheduler import run_trials
from modelnative.sweeps.spec import parse_spec

NOTHING = "builtins:id"  # called with the finished run
CRASHED, REFUSED = Outcome(-9, "killed by SIGKILL"), Outcome(2, "it overflowed")
NO_RESULT = Outcome(0, "exit code 0 without a result")
DAMAGED = [
    b"",
    b"{",
    b"[" * 3000,
    b"\xff\xfe",
    b"null",
    b"{}",
    b'{"evaluation": {"counts": [3], "greedy": true}}',
    b'{"evaluation": {"counts": {}}, "sampled": "x", "updates": "many", "episodes": 1e999, "steps": null}',
]


def sweep_of(path: Path, **table: Any) -> Sweep:
    sweep = Sweep.planned(path / "sweep", parse_spec({"base": TINY, **table}))
    sweep.write()
    return sweep


class FakeExecutor:
    """An executor whose trials end at once, with the outcomes that the test gives."""

    def __init__(self, sweep: Sweep, jobs: int, outcomes: dict[int, list[Outcome]]) -> None:
        self.jobs, self.place = jobs, "nowhere"
        self.sweep, self.outcomes = sweep, outcomes
        self.running: list[Trial] = []
        self.max_running = 0
        self.stopped = False

    def start(self, trial: Trial) -> None:
        self.running.append(trial)
        self.max_running = max(self.max_running, len(self.running))

    def poll(self, seconds: float) -> list[tuple[str, Outcome]]:
        trial = self.running.pop(0)
        script = self.outcomes.get(trial.config.seed, [])
        outcome = script.pop(0) if script else Outcome(0)
        if outcome == Outcome(0):
            write_result(self.sweep.run(trial))
        return [(trial.name, outcome)]

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        pass


def only(events: list[SweepEvent], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_all_trials_run_a_few_at_a_time(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=7)
    write_result(sweep.run(sweep.trials[2]))
    executor = FakeExecutor(sweep, 3, {})
    events = list(run_trials(sweep, executor, retries=0))
    assert events[0] == SweepStarted(sweep, 1, 3, "nowhere")
    started = [event.trial.config.seed for event in only(events, TrialStarted)]
    assert started == [0, 1, 3, 4, 5, 6], "finished trials are not repeated"
    assert executor.max_running == 3
    assert isinstance(events[-1], SweepFinished)
    assert [row.status for row in events[-1].rows] == ["finished"] * 7
    reports = only(events, SweepProgress)
    assert [report.finished for report in reports] == [2, 3, 4, 5, 6, 7]
    assert reports[-1].seconds_left == 0.0


def test_crashed_trials_are_retried_and_refused_ones_are_not(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=4)
    executor = FakeExecutor(sweep, 2, {0: [CRASHED], 1: [REFUSED], 2: [CRASHED, CRASHED, CRASHED], 3: [Outcome(143)]})
    events = list(run_trials(sweep, executor, retries=2))
    crashed = [(event.trial.config.seed, event.retries_left) for event in only(events, TrialCrashed)]
    assert crashed == [(0, 1), (2, 1), (3, 1), (2, 0)]
    rows = {row.seed: row for row in events[-1].rows}
    assert {seed: row.status for seed, row in rows.items()} == {0: "finished", 1: "failed", 2: "failed", 3: "finished"}
    assert [event.row for event in only(events, TrialFailed)] == [rows[1], rows[2]]
    assert rows[1].reason == "it overflowed"
    assert rows[2].reason == "crashed 3 times, last: killed by SIGKILL"
    with open(sweep.results_path, newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["reason"] for row in table] == ["", "it overflowed", rows[2].reason, ""]
    again = list(run_trials(sweep, FakeExecutor(sweep, 2, {}), retries=0))
    assert [event.trial.config.seed for event in only(again, TrialStarted)] == [1, 2], "failed trials are retried"


def test_a_trial_that_exits_0_without_a_result_has_failed(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=3)
    events = list(run_trials(sweep, FakeExecutor(sweep, 2, {0: [NO_RESULT], 1: [NO_RESULT, NO_RESULT]}), retries=1))
    rows = events[-1].rows
    assert [row.status for row in rows] == ["finished", "failed", "finished"]
    assert rows[1].reason == "crashed 2 times, last: exit code 0 without a result"
    (cell,) = cells(rows)
    assert (cell.solved, cell.trials) == (2, 3)
    with open(sweep.results_path, newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["finished", "failed", "finished"]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_result_fails_its_trial_only(content: bytes, tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=2)
    path = sweep.run(sweep.trials[0]).result_path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    rows = list(run_trials(sweep, FakeExecutor(sweep, 1, {0: [REFUSED]}), retries=0))[-1].rows
    assert [row.status for row in rows] == ["failed", "finished"]
    assert rows[0].reason.startswith(f"{path}: ")
    assert "delete it, and write it anew with: modelnative resume" in rows[0].reason
    assert "\n" not in rows[0].reason
    assert path.read_bytes() == content, "it is left as it is"
    path.unlink()
    rows = list(run_trials(sweep, FakeExecutor(sweep, 1, {}), retries=0))[-1].rows
    assert [row.status for row in rows] == ["finished", "finished"]


@pytest.mark.parametrize(
    ("quiet", "result", "phase"),
    [(0, False, ""), (20, False, "playing every problem"), (20, True, "writing its report")],
)
def test_progress_says_what_a_trial_does_after_its_newest_update(
    quiet: float, result: bool, phase: str, tmp_path: Path
) -> None:
    sweep = sweep_of(tmp_path, seeds=2)
    run = sweep.run(sweep.trials[1])
    run.path.mkdir(parents=True)
    run.append([{"update": 3, "success": [0.5, None], "timing": {"seconds": 0.1}}])
    with open(run.metrics_path, "a") as file:
        file.write('{"update": 4, "succ')
    os.utime(run.metrics_path, (time.time() - quiet,) * 2)
    started = 0
    for event in run_trials(sweep, FakeExecutor(sweep, 2, {}), retries=0):
        started += isinstance(event, TrialStarted)
        if result and started == 2 and not run.result_path.exists():
            write_result(run)
        if isinstance(event, SweepProgress):
            assert event.running == {sweep.trials[1].name: TrialProgress(3, (0.5, None), phase)}
            break


def test_a_crash_after_the_result_is_ignored(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    write_result(sweep.run(sweep.trials[0]))
    executor = FakeExecutor(sweep, 1, {0: [CRASHED]})
    sweep.run(sweep.trials[0]).result_path.rename(tmp_path / "result")
    events = run_trials(sweep, executor, retries=0)
    while not isinstance(next(events), TrialStarted):
        pass
    (tmp_path / "result").rename(sweep.run(sweep.trials[0]).result_path)
    assert only(list(events), TrialFinished)[0].row.status == "finished"


def test_after_a_signal_no_trial_is_started(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=6)
    executor = FakeExecutor(sweep, 2, {1: [Outcome(143)], 2: [CRASHED]})
    seen: list[SweepEvent] = []
    for event in run_trials(sweep, executor, retries=2):
        seen.append(event)
        if isinstance(event, TrialFinished):
            os.kill(os.getpid(), signal.SIGTERM)
    assert executor.stopped
    assert len(only(seen, SweepStopping)) == 1
    assert seen[-1] == SweepInterrupted(sweep, signal.SIGTERM, 5)
    assert len(only(seen, TrialStarted)) == 2
    assert not only(seen, TrialCrashed), "a trial that stops on request has not crashed"


def test_a_second_ctrl_c_raises_keyboard_interrupt(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=6)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for event in run_trials(sweep, FakeExecutor(sweep, 2, {}), retries=0):
            if isinstance(event, (TrialFinished, SweepStopping)):
                os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# Real processes


def follow(sweep: Sweep, **options: Any) -> list[SweepEvent]:
    return list(run_sweep(sweep, SweepOptions(on="local", **options), NOTHING))


@pytest.mark.slow
def test_a_killed_trial_is_retried_with_the_same_result(tmp_path: Path) -> None:
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"seeds": 2, "base": {**TINY, "updates": UPDATES}}))
    first = sweep.run(sweep.trials[0])
    when(lambda: updates(first) >= 3, lambda: os.kill(processes(sweep.path)[0], signal.SIGKILL))
    events = follow(sweep, jobs=1)
    (crashed,) = only(events, TrialCrashed)
    assert crashed.reason == "killed by SIGKILL"
    assert [event.update >= 2 for event in only(events, TrialStarted)] == [False, True, False], "it continued"
    assert [row.status for row in events[-1].rows] == ["finished", "finished"]
    untouched = Training.start(tmp_path / "untouched", crashed.trial.config)
    list(untouched.events())
    assert fingerprint(untouched.run) == fingerprint(sweep.run(crashed.trial))


def test_a_trial_that_diverges_fails_and_the_others_go_on(tmp_path: Path) -> None:
    rates = {"optimizer.learning_rate": [1000.0, 0.01]}
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"base": {**TINY, "core": "transformer"}, "grid": rates}))
    events = follow(sweep, jobs=2)
    assert not only(events, TrialCrashed)
    bad, good = events[-1].rows
    assert (bad.status, good.status) == ("failed", "finished")
    assert bad.reason.startswith("optimizer.learning_rate: 1000.0 made the numbers overflow at update ")
    assert (sweep.path / "logs" / f"{bad.trial}.log").read_text().strip() == bad.reason


@pytest.mark.parametrize("left", ["config.json", "config.json.partial", "checkpoints/000000.safetensors.partial"])
def test_a_trial_killed_before_its_training_began_starts_anew(left: str, tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    path = sweep.run(sweep.trials[0]).path / left
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"format": FORMAT, **sweep.trials[0].config.model_dump()}))
    assert follow(sweep)[-1].rows[0].status == "finished"


def test_one_sweep_at_a_time(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    with sweep.lock("sweep"), pytest.raises(UserError, match="held by process"):
        follow(sweep)


@pytest.mark.slow
def test_ctrl_c_stops_the_trials_with_checkpoints_and_they_continue(tmp_path: Path) -> None:
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"seeds": 2, "base": {**TINY, "updates": UPDATES}}))

    runs = [sweep.run(trial) for trial in sweep.trials]
    when(lambda: any(updates(run) >= 3 for run in runs), lambda: os.kill(os.getpid(), signal.SIGINT))
    assert isinstance(follow(sweep, jobs=2)[-1], SweepInterrupted)
    assert not processes(sweep.path)
    unfinished = [trial for trial in sweep.trials if not sweep.finished(trial)]
    stopped = {trial.name: updates(sweep.run(trial)) for trial in unfinished}
    assert max(stopped.values()) >= 3
    events = follow(sweep, jobs=2)
    assert [row.status for row in events[-1].rows] == ["finished", "finished"]
    started = {event.trial.name: event.update for event in only(events, TrialStarted)}
    assert started == stopped, "each continues with the update after the one that it stopped at"


def test_the_caller_may_stop_when_several_trials_have_ended_at_once(tmp_path: Path) -> None:
    class AtOnce(FakeExecutor):
        def poll(self, seconds: float) -> list[tuple[str, Outcome]]:
            assert self.running, "all have been reported"
            return [ended for _ in list(self.running) for ended in super(AtOnce, self).poll(seconds)]

    sweep = sweep_of(tmp_path, seeds=5)
    events = run_trials(sweep, AtOnce(sweep, 3, {}), retries=0)
    while not isinstance(next(events), TrialFinished):
        pass
    events.close()
    assert [
        event.trial.config.seed for event in only(list(run_trials(sweep, AtOnce(sweep, 3, {}), 0)), TrialStarted)
    ] == [
        3,
        4,
    ]


def test_trials_keep_their_work_when_the_caller_fails(tmp_path: Path) -> None:
    endless = {**TINY, "updates": 10_000, "checkpoint_every": 10_000}
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"seeds": 2, "base": endless}))
    runs = [sweep.run(trial) for trial in sweep.trials]

    def fail(event: SweepEvent) -> None:
        if isinstance(event, SweepProgress) and all(updates(run) >= 3 for run in runs):
            raise RuntimeError("a callback")

    with pytest.raises(RuntimeError, match="a callback"):
        mn.sweep({"name": "sweep", "seeds": 2, "base": endless}, sweep.path, jobs=2, on="local", callbacks=[fail])
    assert not processes(sweep.path)
    for run in runs:
        assert int(run.checkpoints()[-1].stem) == len(run.metrics()) >= 3
    with sweep.lock("sweep"):
        pass


DRIVER = """
import sys, time, worlds
from pathlib import Path
from modelnative.sweeps.executors import LocalExecutor
from modelnative.sweeps.folder import Sweep
sweep = Sweep.open(Path(sys.argv[1]))
LocalExecutor(sweep, 1, "builtins:id").start(sweep.trials[0])
time.sleep(600)
"""


def test_trials_stop_when_the_sweep_is_killed(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, base={**TINY, "updates": 10_000, "checkpoint_every": 5000})
    run = sweep.run(sweep.trials[0])
    with subprocess.Popen([sys.executable, "-u", "-c", DRIVER, str(sweep.path)], env=environment()) as parent:
        wait_for(lambda: updates(run) >= 3)
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not [pid for pid in processes(sweep.path) if pid != parent.pid], 30)
    newest = int(run.checkpoints()[-1].stem)
    assert newest == len(run.metrics()) >= 3, "it ended with a checkpoint of its last update"


def test_a_sweep_whose_folder_was_deleted_writes_nothing_more(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=3)
    executor = FakeExecutor(sweep, 1, {})
    with sweep.lock("sweep") as held:
        events = run_trials(sweep, executor, 0, held.require_in_place)
        assert isinstance(next(events), SweepStarted)
        assert isinstance(next(events), TrialStarted)
        shutil.rmtree(sweep.path)
        executor.outcomes = {seed: [CRASHED] for seed in range(3)}
        with pytest.raises(UserError, match=r"^sweep: the folder '.*' was deleted, moved or replaced"):
            next(events)
    assert not sweep.path.exists()


def test_what_a_task_has_to_say_is_told_once(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=3)
    first, second, third = sweep.trials
    sweep.write_notes(first, ["tool t: 1,200 of 3,000 calls failed: ValueError", "one program solves all"])
    sweep.write_notes(second, ["tool t: 7 of 9 calls failed: ValueError", "tool t: 2 of 9 calls failed: KeyError"])
    (sweep.path / "notes" / f"{third.name}.json").write_text("{")
    said = only(list(run_trials(sweep, FakeExecutor(sweep, 1, {}), retries=0)), TaskNoted)
    assert [(event.trial, event.note) for event in said] == [
        (first, "tool t: 1,200 of 3,000 calls failed: ValueError"),
        (first, "one program solves all"),
        (second, "tool t: 2 of 9 calls failed: KeyError"),
    ]
    console = Console(file=io.StringIO(), width=40)
    with SweepView(console) as view:
        for event in said:
            view(event)
    assert console.file.getvalue().splitlines() == [f"note: {event.note}" for event in said]  # type: ignore[attr-defined]
