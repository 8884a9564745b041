"""`evaluate` checks everything before it writes a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import modelnative as mn
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    fields = {"task": "worlds:Small", "updates": 1, "episodes": 16, "policy": {"width": 8}}
    training = Training.start(tmp_path_factory.mktemp("runs") / "run", with_fields(recipe(), fields))
    list(training.events())
    return training.run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": ["T9"]}, "stage: unknown value 'T9'"),
        ({"stages": ["T0", "T9"]}, "stage: unknown value 'T9'"),
        ({"stages": ["T0", "T0"]}, "stages: 'T0 T0' is not allowed; expected each stage once"),
        ({"split": "held"}, "split: unknown value 'held'"),
        ({"split": None}, "split: unknown value None"),
        ({"options": {"feedback": "none"}}, "options: 'feedback=none' is not allowed"),
    ],
)
def test_nothing_is_written_before_everything_is_checked(
    run: Run, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    file = tmp_path / "episodes.jsonl"
    file.write_text("dear\n")
    with pytest.raises(mn.UserError, match=message):
        mn.evaluate(run.path, episodes_file=file, **arguments)
    assert file.read_text() == "dear\n"


def test_episodes_may_be_written_into_the_run_folder_again(run: Run) -> None:
    for _ in range(2):
        played = mn.evaluate(run.path, stages=["T0"], episodes_file=run.path / "episodes.jsonl")
    assert (run.path / "episodes.jsonl").read_text().count("\n") == played.total().problems
