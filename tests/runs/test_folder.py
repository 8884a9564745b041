"""The run folder writes what events say, and a policy that was passed as a module is passed again to go on."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import own
import pytest
import torch

from modelnative.errors import UserError
from modelnative.policies.config import PolicyConfig
from modelnative.runs.events import Checkpointed, Finished, Interrupted, Verified
from modelnative.runs.files import read_json, read_tensors
from modelnative.runs.folder import RunFolder
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio import report
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.training.checkpoint import state_of
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.events import Callback, Started, Updated
from modelnative.training.recipes import recipe

SMALL = {"task": "worlds:Small", "updates": 4, "episodes": 16, "checkpoint_every": 2, "threads": 1}


def config(**changes: Any) -> TrainConfig:
    made: TrainConfig = with_fields(recipe(), {**SMALL, "policy": {"width": 16}, "loss": {"minibatches": 2}, **changes})
    return made


def lstm(seed: int = 3) -> own.LSTM:
    torch.manual_seed(seed)
    return own.LSTM(Arithmetic().spec, PolicyConfig(width=16))


class Recorder(Callback):
    """Notes the events of every method."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_start(self, event: Any) -> None:
        self.events.append(("start", event))

    def on_update(self, event: Any) -> None:
        self.events.append(("update", event))

    def on_verify(self, event: Any) -> None:
        self.events.append(("verify", event))

    def on_checkpoint(self, event: Any) -> None:
        self.events.append(("checkpoint", event))

    def on_finish(self, event: Any) -> None:
        self.events.append(("finish", event))

    def on_interrupt(self, event: Any) -> None:
        self.events.append(("interrupt", event))


def test_callbacks_have_the_events_of_a_run_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    events = list(Training.start(tmp_path / "run", config(), callbacks=[recorder]).events())
    update, checkpoint = "update", "checkpoint"
    expected = ["start", update, update, checkpoint, update, update, checkpoint, "verify", checkpoint, "finish"]
    assert [name for name, _ in recorder.events] == expected
    assert [event for _, event in recorder.events] == events
    kinds = {"start": Started, update: Updated, checkpoint: Checkpointed, "verify": Verified, "finish": Finished}
    assert all(isinstance(event, kinds[name]) for name, event in recorder.events)
    recorder(Interrupted(Run(tmp_path, config()), 3, 2))
    assert recorder.events[-1][0] == "interrupt"


def test_the_folder_has_written_before_a_callback_is_called(tmp_path: Path) -> None:
    def check(event: Any) -> None:
        run = Run.open(tmp_path / "run")
        if isinstance(event, Updated):
            assert run.metrics()[-1]["update"] == event.metrics.update
        elif isinstance(event, Checkpointed):
            assert run.checkpoints()[-1].stem == f"{event.update:06d}"
        elif isinstance(event, Finished):
            assert read_json(run.result_path)["updates"] == event.updates

    list(Training.start(tmp_path / "run", config(), callbacks=[check]).events())


def test_the_folder_writes_what_events_say(tmp_path: Path) -> None:
    training = Training.start(tmp_path / "run", config())
    trainer, folder = training.trainer, RunFolder(training.run)
    run = training.run
    metrics = trainer.update()
    folder(Updated(metrics, 1.0, trainer=trainer))
    assert run.metrics() == [dataclasses.asdict(metrics)]
    [*_, finished] = Training.start(tmp_path / "other", config()).events()
    assert isinstance(finished, Finished)
    folder(Verified(1, finished.evaluation, 1.0, best=False, trainer=trainer))
    assert not run.weights_path.exists(), "not the best"
    folder(Verified(1, finished.evaluation, 1.0, best=True, trainer=trainer))
    for name, tensor in run.weights().items():
        assert torch.equal(tensor, trainer.policy.state_dict()[name])
    folder(Checkpointed(1, {"elapsed": 7.0}, trainer=trainer))
    tensors, about = read_tensors(run.checkpoints()[-1])
    assert about["progress"] == {"elapsed": 7.0}
    expected, counters = state_of(trainer)
    assert about["counters"] == counters
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
    folder(dataclasses.replace(finished, seconds=123.0))
    result = read_json(run.result_path)
    assert result["seconds"] == 123.0
    assert result["evaluation"] == finished.evaluation.as_dict()
    assert result["sampled"] == finished.sampled.as_dict()


def test_a_callback_that_raises_ends_the_run_with_its_error_and_a_checkpoint(tmp_path: Path) -> None:
    def fail(event: Any) -> None:
        if isinstance(event, Updated) and event.metrics.update == 3:
            raise ZeroDivisionError("of the user's own")

    with pytest.raises(ZeroDivisionError, match="of the user's own"):
        list(Training.start(tmp_path / "run", config(), callbacks=[fail]).events())
    run = Run.open(tmp_path / "run")
    assert run.checkpoints()[-1].stem == "000003", "the update is completed, and kept"
    list(Training.start(tmp_path / "whole", config()).events())
    [*_, finished] = Training.resume(tmp_path / "run").events()
    assert isinstance(finished, Finished)
    for name, tensor in Run.open(tmp_path / "whole").weights().items():
        assert torch.equal(tensor, run.weights()[name])


# A policy passed as a module


def interrupted(path: Path) -> None:
    """Two of four updates of a training of a module that was passed."""

    def stop(event: Any) -> None:
        if isinstance(event, Checkpointed):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        list(Training.start(path, config(), policy=lstm(), callbacks=[stop]).events())


def test_a_module_that_is_passed_again_goes_on_to_the_bit(tmp_path: Path) -> None:
    list(Training.start(tmp_path / "whole", config(), policy=lstm()).events())
    interrupted(tmp_path / "run")
    list(Training.resume(tmp_path / "run", policy=lstm(seed=99)).events())
    whole, broken = (Run.open(tmp_path / name) for name in ("whole", "run"))
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, broken.weights()[name])
    policy = broken.policy(broken.task(), lstm(seed=98))
    assert isinstance(policy, own.LSTM)
    assert not policy.training
    assert torch.equal(policy.token.weight, whole.weights()["token.weight"])


def test_without_it_the_error_says_to_pass_it_again(tmp_path: Path) -> None:
    interrupted(tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert not run.weights_path.exists()
    with pytest.raises(UserError, match=r"000002\.safetensors: .*must be passed again: policy=\.\.\.") as error:
        Training.resume(tmp_path / "run")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"must be passed again: policy=\.\.\."):
        run.policy(run.task())
    assert isinstance(run.policy(run.task(), lstm()), own.LSTM), "the newest checkpoint's, while none is verified"
    list(Training.resume(tmp_path / "run", policy=lstm()).events())
    with pytest.raises(UserError, match=r"weights\.safetensors: .*must be passed again: policy=\.\.\.") as error:
        run.policy(run.task())
    assert "\n" not in str(error.value)


def test_a_policy_of_ones_own_by_name_needs_not_be_passed(tmp_path: Path) -> None:
    list(Training.start(tmp_path / "run", config(core="own:LSTM", updates=1)).events())
    run = Run.open(tmp_path / "run")
    assert isinstance(run.policy(run.task()), own.LSTM)


# A folder that is taken away


def delete(path: Path) -> None:
    shutil.rmtree(path)


def empty(path: Path) -> None:
    for inside in path.iterdir():
        shutil.rmtree(inside) if inside.is_dir() else inside.unlink()


def replace_by_an_empty_one(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def replace_by_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("mine")


def replace_by_another_run(path: Path) -> None:
    shutil.rmtree(path)
    run = Run(path, config(seed=7))
    run.write_config()
    run.lock().release()


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def content(path: Path) -> dict[str, bytes]:
    """Every file of a folder, or the file itself."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


TAKEN = [delete, empty, replace_by_an_empty_one, replace_by_a_file, replace_by_another_run, move]


@pytest.mark.parametrize("take", TAKEN)
def test_nothing_is_written_into_a_folder_that_is_no_longer_the_runs(
    tmp_path: Path, take: Callable[[Path], None]
) -> None:
    path, left = tmp_path / "run", {}

    def act(event: Any) -> None:
        if isinstance(event, Updated) and event.metrics.update == 1:
            take(path)
            left.update(content(path))

    with pytest.raises(UserError, match=r"^run: the folder '.*run' was deleted, moved or replaced") as caught:
        list(Training.start(path, config(), callbacks=[act]).events())
    assert "\n" not in str(caught.value)
    assert path.exists() == (take not in (delete, move)), "it is not made again"
    assert content(path) == left


@pytest.mark.parametrize("kind", [Started, Checkpointed, Verified])
def test_a_folder_that_is_deleted_at_any_time_is_noticed(tmp_path: Path, kind: type) -> None:
    def act(event: Any) -> None:
        if isinstance(event, kind) and (tmp_path / "run").exists():
            delete(tmp_path / "run")

    with pytest.raises(UserError, match="was deleted, moved or replaced"):
        list(Training.start(tmp_path / "run", config(updates=2), callbacks=[act]).events())
    assert not (tmp_path / "run").exists()


def test_a_report_does_not_make_a_deleted_folder_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(Training.start(tmp_path / "run", config(updates=1)).events())
    monkeypatch.setattr(report, "charts", lambda *_, **__: delete(tmp_path / "run"))
    with pytest.raises(UserError, match="has no result yet"):
        report.write_report(Run(tmp_path / "run", config(updates=1)))
    assert not (tmp_path / "run").exists()
