"""Runs of format modelnative/1. `data` has two that the version of that format wrote, with every field at its name of
then: one finished, one interrupted after 2 of its 4 updates, beside the metrics of the same training uninterrupted.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import modelnative as mn
from modelnative.policies.config_model import leaf_fields
from modelnative.runs.run import Run
from modelnative.runs.upgrade import RENAMED, RENAMED_IN, earlier_names, upgraded_config

DATA = Path(__file__).parent / "data"
FIELDS: dict[str, Any] = {"episodes": 16, "policy": {"width": 8}, "threads": 1}


def expected(**fields: Any) -> mn.TrainConfig:
    return mn.with_fields(mn.recipe(), {**FIELDS, **fields})


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(DATA / "old_finished", tmp_path / "finished"))


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """A copy of the interrupted run."""
    return Path(shutil.copytree(DATA / "old_interrupted", tmp_path / "interrupted"))


def test_the_files_have_the_old_names() -> None:
    for name in ("old_finished", "old_interrupted"):
        values = json.loads((DATA / name / "config.json").read_text())
        assert values["format"] == "modelnative/1"
        assert set(RENAMED) <= set(values)
        for group, names in RENAMED_IN.items():
            assert set(names) <= set(values[group])


def test_its_configuration(finished: Path, interrupted: Path) -> None:
    assert Run.open(finished).config == expected(updates=2)
    assert Run.open(interrupted).config == expected(updates=4, checkpoint_every=1)


def test_evaluating_gives_what_was_recorded(finished: Path) -> None:
    recorded = json.loads((finished / "result.json").read_text())["evaluation"]["counts"]
    evaluation = mn.evaluate(finished, stages=["T0", "T1"])
    assert evaluation.total().successes > 0
    counts = [
        {name: count[name] for name in recorded[0]} for count in evaluation.as_dict()["counts"]
    ]  # returns are new
    assert counts == [count for count in recorded if count["stage"] != "T2"]


def test_explaining(finished: Path) -> None:
    explanation = mn.explain(finished, stage="T2", problem="3 7 2 4 5")
    assert explanation.record["operands"] == [3, 7, 2, 4, 5]
    assert " ".join(explanation.oracle) == "4 MUL 5 STO 3 MUL 7 ADD 2 SUB RCL ANS"


def test_a_finished_run_is_not_resumed(finished: Path) -> None:
    mn.resume(finished)
    assert (finished / "report.html").exists(), "it had none"
    with pytest.raises(mn.UserError, match="is finished"):
        mn.resume(finished)


def test_resuming_goes_on_as_the_old_version_would(interrupted: Path) -> None:
    before = Run.open(interrupted).metrics()
    assert mn.resume(interrupted).updates == 4
    metrics = Run.open(interrupted).metrics()
    assert metrics[:2] == before
    whole = [json.loads(line) for line in (interrupted / "uninterrupted.jsonl").read_text().splitlines()]
    for now, then in zip(metrics, whole, strict=True):
        assert set(now) == set(then)
        for name in set(then) - {"timing"}:
            value = then[name]
            assert now[name] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value), name


def test_an_old_configuration_file_trains(finished: Path, tmp_path: Path) -> None:
    old = json.loads((finished / "config.json").read_text())
    assert mn.with_fields(mn.TrainConfig(), upgraded_config(old)) == expected(updates=2)
    with pytest.raises(mn.UserError, match="unknown field 'dials'"):
        mn.with_fields(mn.TrainConfig(), upgraded_config({"dials": {}}))


def test_the_core_of_the_tutorial() -> None:
    old = {"format": "modelnative/1", "core": "tutorial-gru", "policy": {"width": 8, "copy": True}}
    assert upgraded_config(old) == {"core": "gru", "policy": {"width": 8, "copy_head": False}}


def test_a_policy_that_is_not_a_table_is_refused_as_elsewhere() -> None:
    old = {"format": "modelnative/1", "core": "tutorial-gru", "policy": 3}
    with pytest.raises(mn.UserError, match="policy: 3 is not allowed; expected a table of fields"):
        mn.with_fields(mn.TrainConfig(), upgraded_config(old))


@pytest.mark.parametrize("found", ["modelnative/3", ["modelnative/1"], None, 1])
def test_other_formats_are_refused(found: object) -> None:
    with pytest.raises(mn.UserError, match="is not allowed; expected modelnative/1 or modelnative/2"):
        upgraded_config({"format": found, "seed": 1})


def test_every_earlier_name_is_a_field_of_today() -> None:
    fields = {name for name, _ in leaf_fields(mn.TrainConfig)}
    assert set(earlier_names().values()) <= fields
    assert not set(earlier_names()) & fields
