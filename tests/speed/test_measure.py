from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from modelnative.errors import UserError
from modelnative.speed import measure as module
from modelnative.speed.measure import TimeToSolution, bench, default_config
from modelnative.speed.processes import (
    BenchMessage,
    MeasurementEvent,
    MeasurementPlan,
    PeakMemory,
    matmul_name,
)
from modelnative.speed.throughput import Throughput
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe

FIELDS = {
    "task": "worlds:Small",
    "updates": 2,
    "episodes": 128,
    "policy": {"width": 8},
    "threads": 1,
    "loss": {"minibatches": 4},
}
TINY = with_fields(recipe(), FIELDS)


@pytest.fixture
def measured_plans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[MeasurementPlan, int]]:
    """Replaces the measurements by known rates; returns the plans and numbers of processes."""
    plans: list[tuple[MeasurementPlan, int]] = []

    def known(plan: MeasurementPlan, processes: int, report: Callable[[MeasurementEvent], None]) -> None:
        plans.append((plan, processes))
        report(BenchMessage("started", "environment"))
        name = matmul_name(8)
        report(Throughput(name, "GFLOP/s", processes, 1, (8.0 * processes, 10.0 * processes, 12.0 * processes)))
        if plan.threads > 1:
            report(Throughput(name, "GFLOP/s", 1, plan.threads, (30.0,)))
        for part, rate in (("rollout", 4e6), ("update", 2e6), ("training", 1e6)):
            report(Throughput(part, "steps/s", processes, 1, (rate * processes,)))
        report(PeakMemory(processes, processes << 20))
        if plan.compiled:
            report(BenchMessage("skipped", "cannot compile"))

    monkeypatch.setattr(module, "measure_in_processes", known)
    return plans


def test_utilization_compares_with_the_same_number_of_cores(measured_plans: list[tuple[MeasurementPlan, int]]) -> None:
    lines: list[str] = []
    measured = bench(TINY, seconds=2, processes=2, progress=lines.append)
    assert [(plan.threads, count) for plan, count in measured_plans] == [(2, 1), (1, 2)]
    assert measured.matmul(1).median == 10
    assert (measured.matmul(2).processes, measured.matmul(2).threads) == (1, 2), "30 is more than 2 × 10"
    work = measured.flops
    assert work is not None
    assert measured.utilization("training", 1) == pytest.approx(1e6 * work["training"] / 10e9)
    assert measured.utilization("training", 2) == pytest.approx(2e6 * work["training"] / 30e9)
    assert measured.utilization("environment", 1) is None
    assert measured.utilization("training", 3) is None
    assert "environment, 2 processes: 2 s" in lines
    written = json.loads(json.dumps(measured.as_dict()))
    assert written["utilization"]["2"]["training"] == measured.utilization("training", 2)
    assert written["config"]["episodes"] == 128
    assert [memory["peak"] for memory in written["memory"]] == [1 << 20, 2 << 20]


def test_one_process_is_measured_once(measured_plans: list[tuple[MeasurementPlan, int]]) -> None:
    measured = bench(with_fields(TINY, {"core": "mingru"}), seconds=1, processes=1)
    assert [(plan.threads, count) for plan, count in measured_plans] == [(1, 1)]
    assert (measured.processes, measured.flops, measured.utilization("training", 1)) == (1, None, None)


def test_processes_are_limited_by_the_batch(
    measured_plans: list[tuple[MeasurementPlan, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cores", lambda limit: 64)
    assert bench(TINY, seconds=1).processes == 2
    assert bench(with_fields(TINY, {"episodes": 16}), seconds=1).processes == 1


def test_failed_compilation_is_not_repeated(measured_plans: list[tuple[MeasurementPlan, int]]) -> None:
    measured = bench(TINY, seconds=1, processes=2, compiled=True)
    assert [plan.compiled for plan, _ in measured_plans] == [True, False]
    assert measured.notes == ("cannot compile",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 0.0}, "seconds: 0.0 is not allowed"),
        ({"seconds": float("inf")}, "seconds: inf is not allowed"),
        ({"processes": 0}, "processes: 0 is not allowed"),
        ({"processes": 3}, "processes: 3 is not allowed; expected from 1 to 2: 16 episodes of a minibatch"),
        ({"solve": -1}, "solve: -1 is not allowed"),
        ({"config": with_fields(TINY, {"threads": 2})}, "threads: 2 is not allowed"),
        ({"config": with_fields(TINY, {"device": "cuda"})}, "device: 'cuda' is not allowed"),
    ],
)
def test_bad_arguments(
    measured_plans: list[tuple[MeasurementPlan, int]], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        bench(**{"config": TINY, "seconds": 1.0, "processes": 1, **arguments})  # type: ignore[arg-type]
    assert measured_plans == []


def test_every_seed_of_the_recipe_is_trained(measured_plans: list[tuple[MeasurementPlan, int]]) -> None:
    configs: list[TrainConfig] = []
    lines: list[str] = []

    def train(config: TrainConfig) -> TimeToSolution:
        configs.append(config)
        return TimeToSolution(config.seed, 1.0, 2, False, "3/4 problems")

    config = with_fields(TINY, {"algorithm": "grpo", "options": {"horizon": 13}})
    measured = bench(config, seconds=1, processes=1, solve=3, train=train, progress=lines.append)
    usual = recipe("worlds:Small", algorithm="grpo")
    assert configs == [with_fields(usual, {"options": {"horizon": 13}, "seed": seed}) for seed in range(3)]
    assert [one.seed for one in measured.solved] == [0, 1, 2]
    assert lines[-3:] == [f"time to solution: seed {seed}" for seed in range(3)]


def test_the_default_training_has_no_hints() -> None:
    config = default_config(algorithm="grpo")
    assert (config.curriculum, config.episodes, config.threads, config.loss.epochs) == ("uniform", 8192, 1, 1)
    assert config.loss.value_weight == recipe(algorithm="grpo").loss.value_weight
