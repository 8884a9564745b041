"""Training as a run: it continues to the bit after any end, and what it leaves behind is whole."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fingerprints import fingerprint

from modelnative.errors import UserError
from modelnative.evidence.evaluate import Count, Evaluation, evaluate
from modelnative.policies.registry import CORES
from modelnative.runs import training as runs
from modelnative.runs.events import Checkpointed, Finished, Interrupted, Verified
from modelnative.runs.files import read_json
from modelnative.runs.run import Run
from modelnative.runs.training import Training, require_device
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.curriculum import Curriculum
from modelnative.training.events import Event, Started, Updated
from modelnative.training.recipes import recipe
from modelnative.training.registry import ALGORITHMS, CURRICULA
from modelnative.training.trainer import Trainer

HELPERS = Path(__file__).parents[1] / "helpers"
SOURCE = Path(__file__).parents[2] / "src"
SMALL = {
    "task": "worlds:Small",
    "updates": 8,
    "episodes": 32,
    "checkpoint_every": 3,
    "evaluate_every": 4,
    "threads": 1,
    "policy": {"width": 16},
    "loss": {"minibatches": 4},
    "curricula": {"search_budget": 300_000},
}


def config(**changes: Any) -> TrainConfig:
    made: TrainConfig = with_fields(recipe(), {**SMALL, **changes})
    return made


# Every core and every curriculum; the algorithms go along.
JOBS: list[dict[str, Any]] = [
    {"core": "gru", "fields": {"policy": {"reader": "gru"}, "loss": {"hint_weight": 0.5}}},
    *({"core": core, "algorithm": "ppo", "curriculum": "hints"} for core in CORES),
    *(
        {"core": "gru", "algorithm": algorithm, "curriculum": curriculum}
        for algorithm, curriculum in zip(
            itertools.cycle(("grpo", "a2c", "rloo", "reinforce")), list(CURRICULA)[1:], strict=False
        )
    ),
]


PARTS = 5


def test_the_jobs_are_complete() -> None:
    assert {job["core"] for job in JOBS} == set(CORES)
    assert {job.get("curriculum", "hints") for job in JOBS} == set(CURRICULA)
    assert {job.get("algorithm", "ppo") for job in JOBS} == set(ALGORITHMS)


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, PARTS))])
def test_killed_and_resumed_is_as_never_stopped(tmp_path: Path, part: int) -> None:
    seed = int.from_bytes(os.urandom(4))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(HELPERS)])}
    command = [sys.executable, str(HELPERS / "zygote.py"), str(tmp_path), json.dumps(JOBS[part::PARTS]), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == len(JOBS[part::PARTS])
    assert any(kill is not None for report in reports for kill in report["kills"]), "some training was killed"
    for report in reports:
        whole, broken = (fingerprint(tmp_path / f"{report['name']}-{kind}") for kind in ("whole", "broken"))
        assert whole == broken, f"{report}, seed {seed}"
        assert sum(name.startswith("metrics") for name in whole) == 12


def stop_at(training: Training, update: int, number: int) -> list[Event]:
    """Follow a training; send its process a signal after an update."""
    seen = []
    for event in training.events():
        seen.append(event)
        if isinstance(event, Updated) and event.metrics.update == update:
            os.kill(os.getpid(), number)
    return seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_of_that_update(tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)
    whole = list(Training.start(tmp_path / "whole", config()).events())
    assert isinstance(whole[-1], Finished)
    for update in (2, 5):
        run = tmp_path / f"stopped at {update}"
        last = stop_at(Training.start(run, config()), update, number)[-1]
        assert isinstance(last, Interrupted)
        assert (last.update, last.signal, last.run.path) == (update, number, run)
        assert Run.open(run).checkpoints()[-1].stem == f"{update:06d}"
        assert not Run.open(run).result_path.exists()
        resumed = list(Training.resume(run).events())
        assert isinstance(resumed[0], Started)
        assert resumed[0].update == update
        assert fingerprint(run) == fingerprint(tmp_path / "whole")
    assert signal.getsignal(number) == before, "the handlers are given back"


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    training = Training.start(tmp_path / "run", config())
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for event in training.events():
            if isinstance(event, Updated):
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
    assert Run.open(tmp_path / "run").checkpoints()


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        list(Training.start(tmp_path / name, config(seed=seed)).events())
    a, b, c = (fingerprint(tmp_path / name) for name in "abc")
    assert a == b
    assert a["metrics 1"] != c["metrics 1"]


def test_the_events_of_a_training(tmp_path: Path) -> None:
    events = list(Training.start(tmp_path / "run", config()).events())
    kinds = [type(event) for event in events]
    assert [kind for kind in kinds if kind is not Checkpointed] == [Started, *[Updated] * 8, Verified, Finished]
    assert [event.update for event in events if isinstance(event, Checkpointed)] == [3, 6, 8]
    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert (started.update, started.stages) == (0, ("T0", "T1", "T2"))
    run = Run.open(tmp_path / "run")
    task = run.task()
    policy = run.policy(task)
    assert started.parameters == sum(p.numel() for p in policy.parameters())
    assert finished.evaluation == evaluate(policy, task), "the verdict is on the weights that were written"
    assert finished.evaluation.total(split="heldout").problems == 120
    assert (finished.updates, finished.episodes) == (8, 8 * 32)
    assert not finished.sampled.greedy
    assert run.metrics() == [dataclasses.asdict(e.metrics) for e in events if isinstance(e, Updated)]
    result = read_json(run.result_path)
    assert result["evaluation"]["line"] == finished.evaluation.line()
    assert result["machine"]["threads"] == 1


def test_what_is_finished_is_not_resumed(tmp_path: Path) -> None:
    list(Training.start(tmp_path / "run", config(updates=1)).events())
    with pytest.raises(UserError, match="is finished; look at it with: modelnative evaluate"):
        Training.resume(tmp_path / "run")


def test_a_kill_before_the_verdict_was_written_trains_no_more(tmp_path: Path) -> None:
    training = Training.start(tmp_path / "run", config())
    training.trainer.update()
    training.run.append([{"update": 1}])
    training.state.solved = True
    training.run.save_weights(training.trainer.policy)
    training.run.save(training.trainer, dataclasses.asdict(training.state))
    training.held.close()
    events = list(Training.resume(tmp_path / "run").events())
    assert not any(isinstance(event, Updated) for event in events)
    assert isinstance(events[-1], Finished)
    assert events[-1].updates == 1


class Rule:
    """A training whose measurements are given; what it asked for is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: float, rates: list[float], perfect: bool) -> None:
        self.measured: list[int] = []

        def success(trainer: Trainer, episodes: int, *, sampled: bool) -> list[float]:
            assert sampled
            assert episodes == runs.SAMPLED_EPISODES
            self.measured.append(trainer.updates)
            return rates

        def right(policy: Any, task: Any, *, split: str = "all", **names: Any) -> Evaluation:
            return Evaluation(tuple(Count(stage, split, 40, 40) for stage in task.spec.stages), greedy=True)

        monkeypatch.setattr(runs, "stage_success", success)
        monkeypatch.setattr(Curriculum, "failure", failure)
        if perfect:
            monkeypatch.setattr(runs, "evaluate", right)

    def follow(self, path: Path, updates: int) -> tuple[list[int], int]:
        """When it verified, and when it ended."""
        events = list(Training.start(path, config(updates=updates, episodes=4)).events())
        assert isinstance(events[-1], Finished)
        return [event.update for event in events if isinstance(event, Verified)], events[-1].updates


@pytest.mark.parametrize(
    ("failure", "sampled", "perfect", "measured", "verified", "end"),
    [
        pytest.param(0.01, [1.0, 0.994, 1.0], True, [1], [1], 1, id="likely, then measured, then verified: solved"),
        pytest.param(0.02, [1.0, 1.0, 1.0], True, [], [20], 20, id="not likely: not even measured"),
        pytest.param(
            0.0, [1.0, 0.993, 1.0], True, [1, 9, 17], [20], 20, id="measured, and a stage is below what is asked"
        ),
        pytest.param(
            0.0, [1.0, 1.0, 1.0], False, [1, 9, 17], [1, 20], 20, id="sure, but a problem fails, and still does"
        ),
    ],
)
def test_it_ends_when_sampled_success_is_measured_and_every_problem_is_right(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: float,
    sampled: list[float],
    perfect: bool,
    measured: list[int],
    verified: list[int],
    end: int,
) -> None:
    rule = Rule(monkeypatch, failure, sampled, perfect)
    assert rule.follow(tmp_path / "run", 20) == (verified, end)
    assert rule.measured == measured


def test_where_success_is_near_verification_shows_what_to_practice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes seldom, and does not end the training: greedily right is not yet as sure as asked for."""
    rule = Rule(monkeypatch, 0.05, [1.0, 1.0, 1.0], perfect=True)
    assert rule.follow(tmp_path / "run", 75) == ([32, 72, 75], 75)
    assert rule.measured == []


def test_the_best_weights_are_kept_not_the_last(tmp_path: Path) -> None:
    training = Training.start(tmp_path / "run", config(updates=1))
    best = training.trainer.policy.input.weight.detach().clone()
    training.run.save_weights(training.trainer.policy)
    training.best_weights = training.run.weights()
    training.state.best = 10**6  # more than there is to solve
    list(training.events())
    policy = training.run.policy(training.run.task())
    assert torch.equal(policy.input.weight, best)


def test_the_budget_of_minutes_ends_it(tmp_path: Path) -> None:
    events = list(Training.start(tmp_path / "run", config(updates=10_000, minutes=1e-3)).events())
    assert isinstance(events[-1], Finished)
    assert 1 <= events[-1].updates < 1_000


# Bad input and bad places


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training.start(tmp_path / "run", config())
    real, writes = os.fsync, 0

    def fsync(file: int) -> None:
        nonlocal writes
        writes += 1
        if writes > 2:  # the file and the folder of the checkpoint at update 3
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match="No space left on device"):
            list(training.events())
    assert [path.name for path in training.run.checkpoints()] == ["000000.safetensors", "000003.safetensors"]
    list(Training.resume(tmp_path / "run").events())
    list(Training.start(tmp_path / "whole", config()).events())
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_disk_full_from_the_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    real, done = os.fsync, 0

    def fsync(file: int) -> None:
        nonlocal done
        done += 1
        if done > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="No space left on device"):
        Training.start(tmp_path / "run", config())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "arithmetik"}, "task: unknown value 'arithmetik'; did you mean 'arithmetic'"),
        ({"options": {"horizon": 5}}, "horizon: 5 is not allowed; expected at least 12"),
        ({"options": {"horizon": "5"}}, "horizon: '5' is not allowed; expected int"),
        ({"options": {"horizons": 12}}, "did you mean 'horizon'"),
        ({"episodes": 0}, "episodes: 0 is not allowed"),
        ({"device": "abacus"}, "device: 'abacus' is not available here"),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Training.start(tmp_path / "run", config(**changes))
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_overflow_are_the_learning_rates_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Trainer.update

    def overflow(trainer: Trainer) -> Any:
        return dataclasses.replace(real(trainer), gradient_norm=float("nan"))

    training = Training.start(tmp_path / "run", config())
    monkeypatch.setattr(Trainer, "update", overflow)
    with pytest.raises(UserError, match=r"optimizer\.learning_rate: .* made the numbers overflow at update 1"):
        list(training.events())
    assert training.run.metrics() == []


def test_devices() -> None:
    require_device("cpu")
    with pytest.raises(UserError, match="device: 'meta' is not available"):
        require_device("meta")
