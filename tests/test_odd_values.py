"""What a program passes is judged as what is typed: one line that names the field, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelnative as mn
from modelnative.errors import require_number
from modelnative.runs.training import Training
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

NO_NUMBERS: tuple[Any, ...] = (None, True, "3", "", b"3", [], [3], {}, {3: 3}, object(), (3,), 3j, float("nan"), -1)
NO_COUNTS: tuple[Any, ...] = (*NO_NUMBERS, 2.0, 2.5, float("inf"), -float("inf"), 10**30, -(10**400))
TINY = {"task": "worlds:Small", "updates": 1, "episodes": 16, "policy": {"width": 8}, "threads": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("odd") / "run"
    list(Training.start(path, with_fields(recipe(), TINY)).events())
    return path


COUNTS: dict[str, Callable[[Path, Any], object]] = {
    "pairs": lambda run, value: mn.inspect(run, pairs=value),
    "seeds": lambda run, value: mn.clinic(["temperature"], seeds=value),
    "problems": lambda run, value: mn.certify("tutorial", problems=value, train=False),
    "processes": lambda run, value: mn.bench(processes=value),
    "solve": lambda run, value: mn.bench(solve=value),
    "port": lambda run, value: mn.serve(run, port=value),
    "num_envs": lambda run, value: mn.VectorEnv("tutorial", value),
}


@pytest.mark.parametrize("field", COUNTS)
def test_counts(run: Path, field: str) -> None:
    for value in NO_COUNTS:
        if field == "processes" and value is None:
            continue  # as many as there are cores
        with pytest.raises(mn.UserError, match=rf"^{field}: [^\n]* is not allowed; expected [^\n]+$"):
            COUNTS[field](run, value)


def test_seconds() -> None:
    for value in (*NO_NUMBERS, 0, float("inf"), 10**400):
        for call in (lambda x: mn.bench(seconds=x), lambda x: mn.certify("tutorial", seconds=x)):
            with pytest.raises(mn.UserError, match=r"^seconds: [^\n]* is not allowed; expected more than 0"):
                call(value)


def test_seeds_of_a_training(tmp_path: Path) -> None:
    for value in NO_COUNTS[1:]:  # None trains one
        with pytest.raises(mn.UserError, match=r"^seeds: [^\n]* is not allowed; expected from 1 to"):
            mn.train(seeds=value, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_numbers_of_numpy_are_numbers() -> None:
    require_number("x", np.int64(3), 1, 3, "1 to 3")
    require_number("x", np.float32(0.5), 0, 1, "0 to 1", whole=False, above=True)


@pytest.mark.parametrize("value", [True, 3, 2.5, [], {}, object(), b"arithmetic"])
def test_tasks_and_configurations(value: Any) -> None:
    with pytest.raises(mn.UserError, match=r"^task: [^\n]* is not allowed; expected a task"):
        mn.recipe(value)
    with pytest.raises(mn.UserError, match=r"^task: [^\n]* is not allowed; expected a task"):
        mn.train(value)
    with pytest.raises(mn.UserError, match=r"^config: [^\n]* is not allowed; expected a TrainConfig"):
        mn.train(config=value)


@pytest.mark.parametrize("value", ["\0", "9" * 5000])
def test_paths_that_no_file_can_have(run: Path, value: str) -> None:
    for call in (
        lambda: mn.compare(value),
        lambda: mn.compare(run, out=value),
        lambda: mn.export(run, value, "safetensors"),
        lambda: mn.plot(run, value),
        lambda: mn.inspect(run, file=value),
        lambda: mn.serve(value),
    ):
        with pytest.raises(mn.UserError, match=r"expected a (path without zero bytes|shorter path)") as refused:
            call()
        assert len(str(refused.value)) < 300


def test_an_export_into_a_file(run: Path) -> None:
    with pytest.raises(mn.UserError, match=r"out: .*config\.json' is not allowed; expected a folder that does not"):
        mn.export(run, run / "config.json", "safetensors")


def test_a_problem_that_is_no_text(run: Path) -> None:
    for value in (None, 123, [1, 2, 3]):
        with pytest.raises(mn.UserError, match=r"^problem: .* is not allowed; expected its text"):
            mn.explain(run, stage="T0", problem=value)  # type: ignore[arg-type]
