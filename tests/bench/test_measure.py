from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest

from modelnative.bench import measure as module
from modelnative.bench.measure import bench, solutions, usual_config
from modelnative.bench.processes import Began, Memory, Note, Told, Work, product_name
from modelnative.bench.training import Rate
from modelnative.errors import UserError
from modelnative.training.config import with_fields
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
def machine(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Work, int]]:
    """A machine whose figures are known; returns what it was asked."""
    asked: list[tuple[Work, int]] = []

    def known(work: Work, processes: int, tell: Callable[[Told], None]) -> None:
        asked.append((work, processes))
        tell(Began("environment"))
        name = product_name(8)
        tell(Rate(name, "GFLOP/s", processes, 1, (8.0 * processes, 10.0 * processes, 12.0 * processes)))
        if work.share > 1:
            tell(Rate(name, "GFLOP/s", 1, work.share, (30.0,)))
        for part, rate in (("rollout", 4e6), ("update", 2e6), ("training", 1e6)):
            tell(Rate(part, "steps/s", processes, 1, (rate * processes,)))
        tell(Memory(processes, processes << 20))
        if work.compiled:
            tell(Note("cannot compile"))

    monkeypatch.setattr(module, "across", known)
    return asked


def test_shares_are_of_the_ceiling_of_the_same_cores(machine: list[tuple[Work, int]]) -> None:
    said: list[str] = []
    measured = bench(TINY, seconds=2, processes=2, tell=said.append)
    assert [(work.share, count) for work, count in machine] == [(2, 1), (1, 2)]
    assert measured.ceiling(1).median == 10
    assert (measured.ceiling(2).processes, measured.ceiling(2).threads) == (1, 2), "30 is more than 2 × 10"
    work = measured.flops
    assert work is not None
    assert measured.share("training", 1) == pytest.approx(1e6 * work["training"] / 10e9)
    assert measured.share("training", 2) == pytest.approx(2e6 * work["training"] / 30e9)
    assert measured.share("environment", 1) is None
    assert measured.share("training", 3) is None
    assert "environment, 2 processes: 2 s" in said
    written = json.loads(json.dumps(measured.as_dict()))
    assert written["share"]["2"]["training"] == measured.share("training", 2)
    assert written["config"]["episodes"] == 128
    assert [memory["peak"] for memory in written["memory"]] == [1 << 20, 2 << 20]


def test_one_process_is_asked_once(machine: list[tuple[Work, int]]) -> None:
    measured = bench(dataclasses.replace(TINY, core="mingru"), seconds=1, processes=1)
    assert [(work.share, count) for work, count in machine] == [(1, 1)]
    assert (measured.processes, measured.flops, measured.share("training", 1)) == (1, None, None)


def test_small_batches_are_not_shared(machine: list[tuple[Work, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda most: 64)
    assert bench(TINY, seconds=1).processes == 2
    assert bench(dataclasses.replace(TINY, episodes=16), seconds=1).processes == 1


def test_what_cannot_be_compiled_is_tried_once(machine: list[tuple[Work, int]]) -> None:
    measured = bench(TINY, seconds=1, processes=2, compiled=True)
    assert [work.compiled for work, _ in machine] == [True, False]
    assert measured.notes == ("cannot compile",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 0.0}, "seconds: 0.0 is not allowed"),
        ({"seconds": float("inf")}, "seconds: inf is not allowed"),
        ({"processes": 0}, "processes: 0 is not allowed"),
        ({"processes": 3}, "processes: 3 is not allowed; expected from 1 to 2: 16 episodes of a minibatch"),
        ({"solve": -1}, "solve: -1 is not allowed"),
        ({"config": dataclasses.replace(TINY, threads=2)}, "threads: 2 is not allowed"),
        ({"config": dataclasses.replace(TINY, device="cuda")}, "device: 'cuda' is not allowed"),
        ({"config": dataclasses.replace(TINY, episodes=0)}, "episodes: 0 is not allowed"),
    ],
)
def test_bad_arguments(machine: list[tuple[Work, int]], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bench(**{"config": TINY, "seconds": 1.0, "processes": 1, **arguments})  # type: ignore[arg-type]
    assert machine == []


def test_every_seed_gets_its_verdict() -> None:
    said: list[str] = []
    solved = solutions(TINY, range(2), said.append)
    assert [one.seed for one in solved] == [0, 1]
    assert all(one.updates == 2 and one.seconds > 0 and not one.solved and "problems" in one.line for one in solved)
    assert said == ["time to solution: seed 0", "time to solution: seed 1"]


def test_solutions_are_of_the_recipe(machine: list[tuple[Work, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(module, "solutions", lambda config, seeds, say: asked.append((config, seeds)) or [])
    bench(with_fields(TINY, {"algorithm": "grpo", "options": {"horizon": 13}}), seconds=1, processes=1, solve=3)
    expected = with_fields(recipe("worlds:Small", algorithm="grpo"), {"options": {"horizon": 13}})
    assert asked == [(expected, range(3))]


def test_the_usual_training_has_no_hints() -> None:
    config = usual_config(algorithm="grpo")
    assert (config.curriculum, config.episodes, config.threads, config.loss.epochs) == ("uniform", 8192, 1, 1)
    assert config.loss.value_weight == recipe(algorithm="grpo").loss.value_weight
