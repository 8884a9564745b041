"""A task that was edited after the training is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import modelnative as mn
from modelnative.errors import UserError
from modelnative.runs.files import read_json, write_json
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.tasks.contract.fingerprint import differences, fingerprint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    Training.start(path, mn.TrainConfig(task="toolbox:make", updates=2, episodes=64))
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def edit(run: Path, part: str, name: str, value: object) -> None:
    saved = read_json(run / "task.json")
    assert saved[part][name] != value
    saved[part][name] = value
    write_json(run / "task.json", saved)


def test_an_unchanged_task_is_silent(run: Path) -> None:
    assert Run.open(run).task(unchanged=True).spec.stages


@pytest.mark.parametrize(
    ("part", "name", "value", "what"),
    [
        ("spec", "horizon", 99, r"spec.horizon: \d+ instead of 99"),
        ("spec", "vocabulary", ["A", "B"] * 40, r"spec.vocabulary\)"),
        ("problems", "double", "0123", r"problems.\w+"),
    ],
)
def test_what_changed_is_named_and_is_not_resumed(run: Path, part: str, name: str, value: object, what: str) -> None:
    name = name if part == "spec" else next(iter(read_json(run / "task.json")[part]))
    edit(run, part, name, value)
    expected = rf"task: 'toolbox:make' has changed since '.*run' was trained \({what}"
    with pytest.warns(UserWarning, match=expected):
        Run.open(run).task()
    with pytest.raises(UserError, match=expected) as caught:
        Training.resume(run)
    assert "undo that to resume, or start a new run" in str(caught.value)


def test_a_run_of_an_earlier_version_has_no_fingerprint(run: Path) -> None:
    (run / "task.json").unlink()
    Run.open(run).task(unchanged=True)


@pytest.mark.parametrize("name", ["arithmetic", "hops", "recall", "dictionary"])
def test_fingerprints_tell_tasks_apart(name: str) -> None:
    task = mn.make(name)
    assert differences(fingerprint(task), fingerprint(mn.make(name))) == []
    other = fingerprint(mn.make("tutorial"))
    assert "spec.horizon" in " ".join(differences(fingerprint(task), other))
