"""The driver: who runs when, what is tried again, and what is told; with a crew that only pretends, then a real one."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from sweeping import TINY, UPDATES, fingerprint, processes, updates, wait_for, when, write_result

from modelnative.errors import UserError
from modelnative.runs.training import Training
from modelnative.sweeps.executors import LocalCrew, Outcome
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.options import Options, carry_out
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.scheduler import (
    Event,
    Pulse,
    SweepBegun,
    SweepEnded,
    SweepInterrupted,
    SweepStopping,
    TrialBegun,
    TrialDied,
    TrialEnded,
    drive,
)
from modelnative.sweeps.spec import parse_spec

NOTHING = "builtins:id"  # to be done with a finished run
DIED, REFUSED = Outcome(-9, "killed by SIGKILL"), Outcome(2, "it overflowed")


def sweep_of(path: Path, **table: Any) -> Sweep:
    sweep = Sweep.planned(path / "sweep", parse_spec({"base": TINY, **table}))
    sweep.write()
    return sweep


class Pretending:
    """A crew whose trials end at once, as the test says."""

    def __init__(self, sweep: Sweep, jobs: int, outcomes: dict[int, list[Outcome]]) -> None:
        self.jobs, self.place = jobs, "nowhere"
        self.sweep, self.outcomes = sweep, outcomes
        self.running: list[Trial] = []
        self.most = 0
        self.stopped = False

    def start(self, trial: Trial) -> None:
        self.running.append(trial)
        self.most = max(self.most, len(self.running))

    def ended(self, seconds: float) -> list[tuple[str, Outcome]]:
        trial = self.running.pop(0)
        script = self.outcomes.get(trial.config.seed, [])
        outcome = script.pop(0) if script else Outcome(0)
        if outcome.finished:
            write_result(self.sweep.run(trial))
        return [(trial.name, outcome)]

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        pass


def only(events: list[Event], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_all_is_done_by_so_many_at_a_time(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=7)
    write_result(sweep.run(sweep.trials[2]))
    crew = Pretending(sweep, 3, {})
    events = list(drive(sweep, crew, retries=0))
    assert events[0] == SweepBegun(sweep, 1, 3, "nowhere")
    begun = [event.trial.config.seed for event in only(events, TrialBegun)]
    assert begun == [0, 1, 3, 4, 5, 6], "what is finished is not repeated"
    assert crew.most == 3
    assert isinstance(events[-1], SweepEnded)
    assert [row.status for row in events[-1].rows] == ["finished"] * 7
    pulses = only(events, Pulse)
    assert [pulse.finished for pulse in pulses] == [2, 3, 4, 5, 6, 7]
    assert pulses[-1].left == 0.0


def test_the_dead_are_tried_again_and_the_refused_are_not(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=4)
    crew = Pretending(sweep, 2, {0: [DIED], 1: [REFUSED], 2: [DIED, DIED, DIED], 3: [Outcome(143)]})
    events = list(drive(sweep, crew, retries=2))
    died = [(event.trial.config.seed, event.left) for event in only(events, TrialDied)]
    assert died == [(0, 1), (2, 1), (3, 1), (2, 0)]
    rows = {row.seed: row for row in events[-1].rows}
    assert {seed: row.status for seed, row in rows.items()} == {0: "finished", 1: "failed", 2: "failed", 3: "finished"}
    assert rows[1].reason == "it overflowed"
    assert rows[2].reason == "died 3 times, last: killed by SIGKILL"
    with open(sweep.results_path, newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["reason"] for row in table] == ["", "it overflowed", rows[2].reason, ""]
    again = list(drive(sweep, Pretending(sweep, 2, {}), retries=0))
    assert [event.trial.config.seed for event in only(again, TrialBegun)] == [1, 2], "the failed are tried again"


def test_a_death_after_the_result_is_none(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    write_result(sweep.run(sweep.trials[0]))
    crew = Pretending(sweep, 1, {0: [DIED]})
    sweep.run(sweep.trials[0]).result_path.rename(tmp_path / "result")
    events = drive(sweep, crew, retries=0)
    while not isinstance(next(events), TrialBegun):
        pass
    (tmp_path / "result").rename(sweep.run(sweep.trials[0]).result_path)
    assert only(list(events), TrialEnded)[0].row.status == "finished"


def test_a_signal_stops_and_nothing_new_is_begun(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=6)
    crew = Pretending(sweep, 2, {1: [Outcome(143)], 2: [DIED]})
    seen: list[Event] = []
    for event in drive(sweep, crew, retries=2):
        seen.append(event)
        if isinstance(event, TrialEnded):
            os.kill(os.getpid(), signal.SIGTERM)
    assert crew.stopped
    assert len(only(seen, SweepStopping)) == 1
    assert seen[-1] == SweepInterrupted(sweep, signal.SIGTERM, 5)
    assert len(only(seen, TrialBegun)) == 2
    assert not only(seen, TrialDied), "who stops when told has not died"


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=6)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for event in drive(sweep, Pretending(sweep, 2, {}), retries=0):
            if isinstance(event, (TrialEnded, SweepStopping)):
                os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# Real processes


def follow(sweep: Sweep, **options: Any) -> list[Event]:
    return list(carry_out(sweep, Options(on="local", **options), NOTHING))


def test_a_killed_trial_is_tried_again_and_is_as_never_killed(tmp_path: Path) -> None:
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"seeds": 2, "base": {**TINY, "updates": UPDATES}}))
    first = sweep.run(sweep.trials[0])
    when(lambda: updates(first) >= 3, lambda: os.kill(processes(sweep.path)[0], signal.SIGKILL))
    events = follow(sweep, jobs=1)
    (died,) = only(events, TrialDied)
    assert died.reason == "killed by SIGKILL"
    assert [event.update >= 2 for event in only(events, TrialBegun)] == [False, True, False], "it continued"
    assert [row.status for row in events[-1].rows] == ["finished", "finished"]
    untouched = Training.start(tmp_path / "untouched", died.trial.config)
    list(untouched.events())
    assert fingerprint(untouched.run) == fingerprint(sweep.run(died.trial))


def test_a_trial_that_diverges_fails_and_the_others_go_on(tmp_path: Path) -> None:
    rates = {"optimizer.learning_rate": [1e30, 0.01]}
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"base": TINY, "grid": rates}))
    events = follow(sweep, jobs=2)
    assert not only(events, TrialDied)
    bad, good = events[-1].rows
    assert (bad.status, good.status) == ("failed", "finished")
    assert bad.reason.startswith("optimizer.learning_rate: 1e+30 made the numbers overflow at update ")
    assert sweep.log_path(bad.trial).read_text().strip() == bad.reason


def test_a_trial_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    run = sweep.run(sweep.trials[0])
    run.path.mkdir(parents=True)
    (run.path / "config.json").write_text("{}")
    assert follow(sweep)[-1].rows[0].status == "finished"


def test_one_sweep_at_a_time(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    with sweep.lock("sweep"), pytest.raises(UserError, match="held by process"):
        follow(sweep)


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
    begun = {event.trial.name: event.update for event in only(events, TrialBegun)}
    assert begun == stopped, "each continues with the update after the one that it stopped at"


def test_a_driver_that_vanishes_leaves_no_trial_behind(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, base={**TINY, "updates": 10_000})
    trial = sweep.trials[0]
    leader = os.fork()
    if not leader:
        LocalCrew(sweep, 1, NOTHING).start(trial)
        signal.pause()
        os._exit(1)
    wait_for(lambda: len(sweep.run(trial).checkpoints()) >= 2)
    assert len(processes(sweep.path)) == 1
    os.kill(leader, signal.SIGKILL)
    os.waitpid(leader, 0)
    wait_for(lambda: not processes(sweep.path), 30)
    newest = int(sweep.run(trial).checkpoints()[-1].stem)
    assert newest == len(sweep.run(trial).metrics()), "it ended with a checkpoint of its last update"
