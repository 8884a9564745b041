from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modelnative.errors import UserError
from modelnative.runs.files import FORMAT, read_tensors, write_tensors
from modelnative.runs.run import Run
from modelnative.tasks import make_task
from modelnative.training.checkpoint import state_of
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.trainer import Trainer


def config(**changes: Any) -> TrainConfig:
    small = {"task": "worlds:Small", "episodes": 16, "policy": {"width": 8}, "threads": 1}
    made: TrainConfig = with_fields(recipe(), {**small, **changes})
    return made


def begin(path: Path, **changes: Any) -> tuple[Run, Trainer]:
    """A run with its first checkpoint."""
    run = Run.create(path, config(**changes))
    trainer = Trainer(run.task(), run.config)
    run.save(trainer, {"elapsed": 0.0})
    return run, trainer


def test_a_run_opens_as_it_was_created(tmp_path: Path) -> None:
    created = Run.create(tmp_path / "a" / "run", config(seed=3, options={"feedback": "none"}))
    opened = Run.open(tmp_path / "a" / "run")
    assert opened == created
    assert opened.task().spec.feedback_width == 0
    assert json.loads((opened.path / "config.json").read_text())["format"] == FORMAT


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    created = Run.create(tmp_path, config())
    assert Run.open(tmp_path) == created


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_nothing_is_overwritten(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run"
    if kind == "folder":
        path.mkdir()
        (path / "mine").write_text("mine")
    else:
        path.write_text("mine")
    with pytest.raises(UserError, match="exists already; choose another folder, or continue it with: modelnative"):
        Run.create(path, config())
    assert ((path / "mine") if kind == "folder" else path).read_text() == "mine"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Run.create(tmp_path / "file" / "run", config())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run folder"),
        ("{", "not JSON"),
        ("[]", "not a modelnative configuration"),
        ('{"format": "other/1"}', "not a modelnative configuration"),
        (json.dumps({"format": FORMAT, "sed": 3}), "unknown field 'sed'; did you mean 'seed'"),
        (json.dumps({"format": FORMAT, "seed": "3"}), "seed: '3' is not allowed; expected a whole number"),
        (json.dumps({"format": FORMAT, "core": "grru"}), "did you mean 'gru'"),
    ],
)
def test_what_is_not_a_run(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        Run.open(tmp_path)


@pytest.mark.parametrize("kept", [1, 3, 7])
def test_the_newest_checkpoints_are_kept(tmp_path: Path, kept: int) -> None:
    run, trainer = begin(tmp_path / "run", keep_checkpoints=kept)
    (run.path / "checkpoints" / "notes.safetensors").write_text("not ours")
    for update in range(1, kept + 3):
        trainer.updates = update
        run.save(trainer, {"elapsed": float(update)})
    assert [int(path.stem) for path in run.checkpoints()] == list(range(3, kept + 3))
    assert run.restore(trainer) == {"elapsed": float(kept + 2)}


def test_a_checkpoint_holds_all_that_the_trainer_is(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path / "run")
    trainer.update()
    run.save(trainer, {})
    other = Trainer(run.task(), run.config)
    run.restore(other)
    (tensors, counters), (others, other_counters) = state_of(trainer), state_of(other)
    assert counters == other_counters
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_no_checkpoint(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", config())
    with pytest.raises(UserError, match="has no checkpoint"):
        run.restore(Trainer(run.task(), run.config))


def test_a_truncated_checkpoint_names_the_one_before(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path / "run")
    trainer.updates = 5
    newest = run.save(trainer, {})
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.raises(
        UserError, match=r"000005.safetensors: damaged .*; delete it to continue from 000000.safetensors"
    ):
        run.restore(trainer)
    newest.unlink()
    run.restore(trainer)
    assert trainer.updates == 0


def test_a_foreign_checkpoint(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path / "run")
    save_file({"x": torch.zeros(2)}, run.checkpoints()[-1])
    with pytest.raises(UserError, match="not a modelnative file"):
        run.restore(trainer)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"task": "arithmetic"}, "task"),
        ({"options": {"feedback": "none"}}, "options"),
        ({"core": "mingru"}, "core"),
        ({"policy": {"width": 9}}, "policy"),
    ],
)
def test_a_checkpoint_of_another_task_or_network(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    run, trainer = begin(tmp_path / "run")
    other, other_trainer = begin(tmp_path / "other", **changes)
    run.checkpoints()[-1].write_bytes(other.checkpoints()[-1].read_bytes())
    with pytest.raises(UserError, match=f"its {name} is .*, but this run's is"):
        run.restore(trainer)
    other.save_weights(other_trainer.policy)
    run.weights_path.write_bytes(other.weights_path.read_bytes())
    with pytest.raises(UserError, match=f"its {name} is .*, but this run's is"):
        run.policy(run.task())


def test_weights_from_before_a_field_was_there(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path / "run")
    run.save_weights(trainer.policy)
    tensors, about = read_tensors(run.weights_path)
    del about["policy"]["reader"]
    write_tensors(run.weights_path, tensors, about)
    for mine, saved in zip(run.policy(run.task()).parameters(), trainer.policy.parameters(), strict=True):
        assert torch.equal(mine, saved)


def test_tensors_of_another_shape_under_the_right_name(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path / "run")
    path = run.checkpoints()[-1]
    tensors, about = read_tensors(path)
    write_tensors(path, {**tensors, "policy.input.weight": torch.zeros(2)}, about)
    with pytest.raises(UserError, match="not those of this run's network"):
        run.restore(trainer)
    tensors.popitem()
    write_tensors(path, tensors, about)
    with pytest.raises(UserError, match="not those of this run's network"):
        run.restore(trainer)


def test_weights_are_not_a_checkpoint(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path / "run")
    run.save_weights(trainer.policy)
    run.checkpoints()[-1].write_bytes(run.weights_path.read_bytes())
    with pytest.raises(UserError, match="its kind is 'weights', but this run's is 'checkpoint'"):
        run.restore(trainer)


def test_the_policy_is_the_best_one_or_the_newest(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path / "run")
    trainer.update()
    run.save(trainer, {})

    def weight() -> torch.Tensor:
        return run.policy(run.task()).input.weight

    assert torch.equal(weight(), trainer.policy.input.weight), "the newest checkpoint's while there is no verified one"
    best = trainer.policy.input.weight.detach().clone()
    run.save_weights(trainer.policy)
    trainer.update()
    run.save(trainer, {})
    assert torch.equal(weight(), best)


def test_metrics_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", config())
    run.forget_after(0)
    assert run.metrics() == []
    run.append([{"update": update} for update in range(1, 6)])
    with open(run.metrics_path, "a") as file:
        file.write('{"upd')
    run.forget_after(3)
    assert run.metrics() == [{"update": 1}, {"update": 2}, {"update": 3}]


def test_the_task_of_a_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", with_fields(config(), {"task": "tutorial", "options": {"horizon": 7}}))
    assert run.task().spec == make_task("tutorial", horizon=7).spec
