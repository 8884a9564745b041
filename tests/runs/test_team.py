from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelnative import api
from modelnative.errors import UserError
from modelnative.runs.run import Run
from modelnative.runs.team import Team, seeds_of
from modelnative.runs.training import Interrupted, Updated
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe

CONFIG = {
    "task": "worlds:Small",
    "episodes": 32,
    "updates": 4,
    "checkpoint_every": 2,
    "policy": {"width": 8},
    "loss": {"minibatches": 2},
}


def config(**changes: object) -> TrainConfig:
    return with_fields(recipe(), {**CONFIG, **changes})


def test_every_seed_is_a_run_of_its_own_with_a_report_of_all(tmp_path: Path) -> None:
    finished = api.train_seeds(config(seed=5), 3, tmp_path / "team")
    assert [end.run.config.seed for end in finished] == [5, 6, 7]
    assert [folder.name for folder in seeds_of(tmp_path / "team")] == ["seed-5", "seed-6", "seed-7"]
    for end in finished:
        assert len(end.run.metrics()) == end.updates == 4
        assert json.loads(end.run.result_path.read_text())["evaluation"]["line"] == end.evaluation.line()
        assert (end.run.path / "report.html").exists()
    page = (tmp_path / "team" / "report.html").read_text()
    assert "of 3 seeds solved every problem" in page
    assert all(f"seed-{seed}/report.html" in page for seed in (5, 6, 7))
    assert {end.run.metrics()[0]["mean_return"] for end in finished} != {finished[0].run.metrics()[0]["mean_return"]}


def test_a_team_that_was_stopped_goes_on(tmp_path: Path) -> None:
    team = Team.start(tmp_path / "team", config(), 2)
    for seed, event in team.events():
        if seed == 1 and isinstance(event, Updated) and event.metrics.update == 2:
            break  # as a kill would: the checkpoint of update 2 is not there for seed 1
    finished = api.resume_seeds(tmp_path / "team")
    assert [end.updates for end in finished] == [4, 4]
    for folder in seeds_of(tmp_path / "team"):
        assert [line["update"] for line in Run.open(folder).metrics()] == [1, 2, 3, 4]
    with pytest.raises(UserError, match="is finished"):
        api.resume_seeds(tmp_path / "team")


def test_ctrl_c_keeps_every_seed(tmp_path: Path) -> None:
    def press(seed: int, event: object) -> None:
        if isinstance(event, Updated) and event.metrics.update == 2 and seed == 0:
            import signal

            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="resume with: modelnative resume"):
        api.train_seeds(config(), 2, tmp_path / "team", press)
    team = Team.resume(tmp_path / "team")
    assert [training.trainer.updates for training in team.trainings] == [2, 2]
    assert not any(isinstance(event, Interrupted) for _, event in team.events())


@pytest.mark.parametrize(
    ("changes", "seeds", "message"),
    [
        ({}, 0, "seeds: 0 is not allowed; expected at least 1"),
        ({"core": "mingru"}, 2, "core: 'mingru' is not allowed; expected gru"),
        ({"policy": {"reader": "gru"}}, 2, "policy.reader: 'gru' is not allowed; expected sum"),
        ({"episodes": 0}, 2, "episodes: 0 is not allowed"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    changes: dict[str, object], seeds: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        Team.start(tmp_path / "team", config(**changes), seeds)
    assert not (tmp_path / "team").exists()


def test_a_folder_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    with pytest.raises(UserError, match="exists; name a new folder"):
        Team.start(tmp_path / "team", config(), 2)
