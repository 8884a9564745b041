"""Threads and processes change nothing of what is learned: see `helpers/ranked.py` for what the processes do."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
import torch
from ranks import Ranks

from modelnative.errors import UserError
from modelnative.policies.registry import CORES
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.training import trainer as trainers
from modelnative.training.checkpoint import state_of
from modelnative.training.config import with_fields
from modelnative.training.metrics import stage_success
from modelnative.training.parallel import Group, Pool, cores, own_device, reports_errors
from modelnative.training.recipes import recipe
from modelnative.training.rollout import Plan, play
from modelnative.training.trainer import Trainer

# Threads


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_pool_keeps_the_order(threads: int) -> None:
    pool = Pool(threads)
    assert pool.map(lambda x: x * x, range(10)) == [x * x for x in range(10)]
    assert pool.map(lambda x: x, []) == []
    assert next(iter(pool.stream(lambda x: 1 // x, [1] * threads + [0]))) == 1, "no more is begun than needed"
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda x: 1 // x, [1, 0, 1])


def test_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, limit, expected in (("3", 8, 3), ("16", 8, 8), ("16", 32, 16)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert cores(limit) == expected
    for value in ("", "0", "two"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert 1 <= cores() <= min(8, os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("core", "algorithm", "curriculum", "reader"),
    [("gru", "ppo", "hints", "sum"), ("gru", "ppo", "hints", "gru"), ("transformer", "grpo", "threshold", "sum")],
)
def test_threads_change_nothing_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, core: str, algorithm: str, curriculum: str, reader: str
) -> None:
    monkeypatch.setattr(trainers, "PLAYED_AT_ONCE", 7)
    monkeypatch.setattr(trainers, "LEARNED_AT_ONCE", 5)
    changes = {
        "episodes": 32,
        "policy": {"width": 8, "heads": 2, "reader": reader},
        "loss": {"num_generations": 4, "minibatches": 4, "hint_weight": 0.5 if reader == "gru" else 0.0},
        "evaluate_every": 10,
    }
    states = []
    for threads in (1, 2, 3):
        config = with_fields(recipe("arithmetic", algorithm, core, curriculum), {**changes, "threads": threads})
        trained = Trainer(Arithmetic(), config)
        metrics = [trained.update() for _ in range(2)]
        numbers = [{k: v for k, v in vars(line).items() if k != "timing"} for line in metrics]
        states.append((state_of(trained)[0], repr(numbers), stage_success(trained, 33, sampled=True)))
    for tensors, *rest in states[1:]:
        assert rest == [*states[0][1:]]
        assert all(torch.equal(tensors[name], states[0][0][name]) for name in states[0][0])


# Alone


def test_alone_a_group_does_nothing() -> None:
    group, rows = Group(), torch.arange(5)
    assert (group.rank, group.size, group.is_leader) == (0, 1, True)
    (added,) = group.add([rows])
    for same in (group.shard(rows), group.scatter(rows, 5), group.gather(rows, 5), group.broadcast(rows), added):
        assert same is rows
    assert (group.broadcast_numbers([1.5]), group.broadcast_text("x"), group.max(3)) == ([1.5], "x", 3)
    group.close()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("sampled", [False, True])
def test_no_episode_can_be_played(core: str, sampled: bool) -> None:
    trained = Trainer(Arithmetic(), with_fields(recipe(core=core), {"policy": {"width": 16}}))
    problems = trained.task.sample(torch.zeros(3, dtype=torch.int64), torch.Generator(), "train")[:0]
    horizon = trained.task.spec.horizon
    rollout = play(
        trained.policy, trained.task, problems, Plan.sampled(problems, horizon, trained.generator) if sampled else None
    )
    assert rollout.action.shape == (0, 0)
    assert len(rollout.success) == len(rollout.final.done) == 0


def test_who_cannot_be_joined_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match=r"WORLD_SIZE: 2 processes cannot be joined \(.*MASTER_ADDR expected"):
        Group()


def test_who_waits_for_others_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def nobody_comes(*arguments: object, **options: object) -> None:
        time.sleep(0.5)
        raise RuntimeError("timed out")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("modelnative.training.parallel.PATIENCE", 0.01)
    monkeypatch.setattr(torch.distributed, "init_process_group", nobody_comes)
    with pytest.raises(UserError, match="timed out"):
        Group()
    assert capsys.readouterr().err == "waiting for the other 1 of WORLD_SIZE=2 processes\n"


def test_every_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [own_device(name) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"], "alone"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [own_device(name) for name in ("cpu", "cuda")] == ["cpu", "cuda:1"]
    with pytest.raises(UserError, match="device: 'cuda:1' is not allowed with several processes; expected cuda"):
        own_device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="device: 2 GPUs are here, too few"):
        own_device("cuda")


def test_without_torchrun_every_process_reports_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reports_errors()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert reports_errors(), "better twice than never"


# Processes


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_laws_of_a_group(ranks: Ranks, size: int) -> None:
    seed = int.from_bytes(os.urandom(3))
    assert all(ranks("ranked:laws", size, str(seed))), f"seed {seed}"


# Odd batches; practice of more processes than a minibatch has episodes; every algorithm's own arithmetic.
JOBS: list[dict[str, Any]] = [
    {"episodes": 30, "loss": {"minibatches": 4}},
    {"episodes": 28, "algorithm": "grpo", "loss": {"minibatches": 3, "num_generations": 4}},
    {"episodes": 27, "curriculum": "threshold", "core": "transformer"},
    {"episodes": 24, "curriculum": "threshold", "algorithm": "grpo", "core": "mingru", "loss": {"num_generations": 3}},
    {"episodes": 16, "algorithm": "rloo", "loss": {"num_generations": 4}},
    {"episodes": 25, "algorithm": "reinforce", "curriculum": "learnability"},
    {"episodes": 5, "loss": {"minibatches": 4}},
    {"episodes": 2, "core": "transformer", "loss": {"minibatches": 2}},
    {"episodes": 1, "loss": {"minibatches": 1}},
]


@pytest.mark.slow
def test_processes_change_nothing_but_the_order_of_additions(ranks: Ranks) -> None:
    alone, *several = (ranks("ranked:train_doubly", size, json.dumps(JOBS), "4") for size in (1, 2, 4))
    for found in several:
        for job, (expected, *others) in zip(JOBS, zip(alone[0], *found, strict=True), strict=True):
            for other in others:
                assert other == others[0], f"{job}: the ranks agree to the bit"
            close(others[0], expected, f"{job}, {len(found)} processes")


def test_they_do_so_with_single_precision_too(ranks: Ranks) -> None:
    """As far as rounding lets them; and as many processes do to the bit what they did before."""
    job = json.dumps([{"episodes": 33, "evaluate_every": 10}])
    alone, *several = (ranks("ranked:train", size, job, "2") for size in (1, 2, 4))
    assert ranks("ranked:train", 2, job, "2") == several[0]
    for [[found], *_] in several:
        torch.testing.assert_close(
            torch.tensor(found["weights"]), torch.tensor(alone[0][0]["weights"]), rtol=1e-4, atol=1e-5
        )


def close(found: Any, expected: Any, where: str) -> None:
    """Equal, but for rounding of floats."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name, value in expected.items():
            close(found[name], value, f"{where}: {name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for one, other in zip(found, expected, strict=True):
            close(one, other, where)
    elif not isinstance(expected, float):
        assert found == expected, where
    else:
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-10), where
