"""Who may train in a run folder, from where a training goes on, and how it is extended or begun from another run."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from fingerprints import fingerprint

import modelnative as mn
from modelnative import native
from modelnative.api import training as api
from modelnative.errors import UserError
from modelnative.native import build
from modelnative.runs.events import Checkpointed, Finished, Interrupted, Verified
from modelnative.runs.files import read_json, read_tensors, write_tensors
from modelnative.runs.run import Run, new_folder
from modelnative.runs.training import Training
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.events import Event, Started, Updated
from modelnative.training.recipes import recipe

HELPERS = Path(__file__).parents[1] / "helpers"
SOURCE = Path(__file__).parents[2] / "src"
SMALL = {
    "task": "worlds:Small",
    "updates": 4,
    "episodes": 16,
    "checkpoint_every": 100,
    "threads": 1,
    "policy": {"width": 8},
    "loss": {"minibatches": 2},
}


def config(**changes: Any) -> TrainConfig:
    made: TrainConfig = with_fields(recipe(), {**SMALL, **changes})
    return made


def train(path: Path, **changes: Any) -> Finished:
    [*_, finished] = Training.start(path, config(**changes)).events()
    assert isinstance(finished, Finished)
    return finished


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run whose budget ended."""
    train(tmp_path / "finished")
    return tmp_path / "finished"


def newest(path: Path) -> int:
    return int(Run.open(path).checkpoints()[-1].stem)


# Whoever leaves a training loses nothing


def leave(events: Any, update: int, how: str) -> None:
    for event in events:
        if isinstance(event, Updated) and event.metrics.update == update:
            if how == "raise":
                raise ZeroDivisionError
            return


@pytest.mark.parametrize("how", ["break", "raise"])
def test_who_stops_iterating_leaves_a_checkpoint(tmp_path: Path, how: str) -> None:
    events = Training.start(tmp_path / "run", config()).events()
    with contextlib.suppress(ZeroDivisionError):
        leave(events, 2, how)
    events.close()
    assert newest(tmp_path / "run") == 2
    list(Training.resume(tmp_path / "run").events())
    train(tmp_path / "whole")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize("error", [BrokenPipeError, SystemExit, ValueError])
@pytest.mark.parametrize("kind", [Updated, Verified, Checkpointed, Finished])
def test_a_callback_that_fails_loses_nothing(tmp_path: Path, error: type[BaseException], kind: type[Event]) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, kind):
            raise error("as when the reader of a pipe has gone")

    with pytest.raises(error):
        list(Training.start(tmp_path / "run", config(), callbacks=[fail]).events())
    assert newest(tmp_path / "run") == (1 if kind is Updated else 4)
    if kind is Finished:
        assert Run.open(tmp_path / "run").result()
    else:
        list(Training.resume(tmp_path / "run").events())


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_closed_terminal_leaves_a_checkpoint(tmp_path: Path) -> None:
    events = []
    for event in Training.start(tmp_path / "run", config()).events():
        events.append(event)
        if isinstance(event, Updated) and event.metrics.update == 3:
            os.kill(os.getpid(), signal.SIGHUP)
    assert isinstance(events[-1], Interrupted)
    assert (events[-1].signal, newest(tmp_path / "run")) == (signal.SIGHUP, 3)


@pytest.mark.skipif(native.backend() != "native", reason="there are no kernels here")
def test_a_run_that_is_continued_without_kernels_says_so(tmp_path: Path) -> None:
    events = Training.start(tmp_path / "run", config()).events()
    assert not any(note for event in events if isinstance(event, Started) for note in event.notes)
    with pytest.MonkeyPatch.context() as patch:  # not the kernels of the tests that follow
        patch.setattr(build, "kernels", functools.cache(build.kernels.__wrapped__))
        patch.setenv("MODELNATIVE_KERNELS", "torch")
        [started, *_] = Training.resume(tmp_path / "run", updates=6).events()
    assert isinstance(started, Started)
    assert any("computed by native and by torch in turn" in note for note in started.notes)


def test_after_an_interruption_the_same_process_continues(tmp_path: Path) -> None:
    """Also while the exception, which holds the frames of the training, is still looked at."""

    def stop(event: Event) -> None:
        if isinstance(event, Updated) and event.metrics.update == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="resume with: modelnative resume") as interrupt:
        mn.train(config=config(), out=tmp_path / "my run", callbacks=[stop])
    assert f"resume '{tmp_path / 'my run'}'" in str(interrupt.value), "quoted, to be pasted into a shell"
    assert mn.resume(tmp_path / "my run").updates == 4


# One process trains in a folder


def test_two_cannot_train_in_one_folder(tmp_path: Path) -> None:
    training = Training.start(tmp_path / "run", config())
    next(events := training.events())
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"run: another process trains in '.*run'; wait until it ends") as error:
        Training.resume(tmp_path / "run")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"out: .* exists already"):
        Training.start(tmp_path / "run", config())
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert [type(event) for event in events][-1] is Finished
    with pytest.raises(UserError, match="is finished"):
        Training.resume(tmp_path / "run")


def command(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(HELPERS)])}
    return subprocess.Popen(
        [sys.executable, "-m", "modelnative", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kind", ["train", "resume"])
@pytest.mark.slow
def test_of_two_processes_one_trains(tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    if kind == "train":
        flags = ["--updates", "40", "--episodes", "16", "--loss.minibatches", "2", "--policy.width", "8"]
        words = ["train", "--task", "worlds:Small", *flags, "--out", str(run)]
    else:
        leave(Training.start(run, config(updates=40)).events(), 1, "break")
        words = ["resume", str(run)]
    processes = [command(*words), command(*words)]
    ends = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert sorted(code for *_, code in ends) == [0, 2], ends
    complaint = next(said for _, said, code in ends if code == 2)
    assert complaint.startswith("modelnative: error: ")
    assert complaint.count("\n") == 1
    assert [line["update"] for line in Run.open(run).metrics()] == list(range(1, 41))


def test_two_threads_that_begin_in_one_folder(tmp_path: Path) -> None:
    trainings: list[Training] = []
    errors: list[UserError] = []

    def begin(seed: int) -> None:
        try:
            trainings.append(Training.start(tmp_path / "run", config(seed=seed)))
        except UserError as error:
            errors.append(error)

    threads = [threading.Thread(target=begin, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(trainings), len(errors)) == (1, 3)
    assert Run.open(tmp_path / "run").config == trainings[0].run.config


def test_folders_of_the_same_second_have_different_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "20260101-000000")
    paths = []
    for _ in range(3):
        training = Training.start(None, config(updates=1))
        paths.append(training.run.path)
        training.held.close()
    assert paths == [
        new_folder(config()).with_name(f"20260101-000000-worlds.Small-gru-ppo-0{n}") for n in ("", "-2", "-3")
    ]


# A folder from before the training began, and one after its end


def test_a_folder_of_a_training_that_did_not_begin_is_trained_into(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("run.lock", "config.json.partial", "checkpoints/000000.safetensors"):
        (run / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"killed before it began; begin it with: modelnative train --out"):
        Training.resume(run)
    train(run)
    train(tmp_path / "whole")
    assert fingerprint(run) == fingerprint(tmp_path / "whole")


def test_what_may_be_precious_is_not_trained_into(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "000007.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="exists already"):
        Training.start(tmp_path, config())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_a_run_without_any_checkpoint_begins_anew(tmp_path: Path) -> None:
    """An earlier version wrote the configuration first."""
    Run.create(tmp_path / "run", config())
    list(Training.resume(tmp_path / "run").events())
    train(tmp_path / "whole")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


def test_a_report_that_fails_does_not_fail_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(run: Run) -> None:
        raise ZeroDivisionError("of a picture")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(api, "write_report", fail)
        assert mn.train(config=config(), out=tmp_path / "run").updates == 4
    (record,) = caplog.records
    assert "ZeroDivisionError: of a picture" in record.getMessage()
    assert f"write it again with: modelnative report {tmp_path / 'run'}" in record.getMessage()
    result = (tmp_path / "run" / "result.json").read_bytes()
    verdict, resumed = Run.open(tmp_path / "run").result(), mn.resume(tmp_path / "run")
    assert isinstance(resumed, Finished)
    assert (resumed.evaluation, resumed.sampled, resumed.updates) == (verdict.evaluation, verdict.sampled, 4)
    assert (tmp_path / "run" / "report.html").stat().st_size > 1000
    assert (tmp_path / "run" / "result.json").read_bytes() == result
    with pytest.raises(UserError, match="is finished"):
        mn.resume(tmp_path / "run")


# Metrics are read by their update


def test_lines_are_dropped_by_their_update(tmp_path: Path) -> None:
    training = Training.start(tmp_path / "run", config())
    leave(training.events(), 3, "break")
    run = training.run
    lines = run.metrics_path.read_bytes().splitlines(keepends=True)
    extra = lines[2].replace(b'"update": 3', b'"update": 4')
    run.metrics_path.write_bytes(b"".join([*lines, *lines[1:], extra, extra[:20]]))
    list(Training.resume(tmp_path / "run").events())
    train(tmp_path / "whole")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x81\n", r"metrics\.jsonl: line 1: not JSON"),
        (b"[" * 2000 + b"]" * 2000 + b"\n", r"metrics\.jsonl: line 1: n"),
        (b"[]\n", r"line 1 is not the metrics of an update"),
        (b'{"update": "1"}\n', r"line 1 is not the metrics of an update"),
    ],
)
def test_damaged_metrics(tmp_path: Path, content: bytes, message: str) -> None:
    training = Training.start(tmp_path / "run", config())
    training.held.close()
    training.run.metrics_path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        Training.resume(tmp_path / "run")
    assert "\n" not in str(error.value)


# Damaged files


@pytest.mark.parametrize(
    "change",
    [
        {"progress": None},
        {"progress": {"elapsed": "long"}},
        {"counters": []},
        {"counters": {"updates": None, "episodes": 0, "steps": 0}},
        {"counters": {"updates": 0}},
    ],
)
def test_a_checkpoint_with_odd_metadata(tmp_path: Path, change: dict[str, Any]) -> None:
    training = Training.start(tmp_path / "run", config())
    training.held.close()
    path = training.run.checkpoints()[-1]
    tensors, about = read_tensors(path)
    write_tensors(path, tensors, {**about, **change})
    with pytest.raises(UserError, match=r"000000\.safetensors: ") as error:
        Training.resume(tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"evaluation": 3}', '{"evaluation": {"counts": [1], "greedy": true}}']
)
def test_a_damaged_verdict(finished: Path, content: str) -> None:
    before = fingerprint(finished)
    (finished / "result.json").write_text(content)
    with pytest.raises(UserError, match=r"result\.json: damaged .*; delete it, and write it anew with: modelnative"):
        Run.open(finished).result()
    (finished / "result.json").unlink()
    list(Training.resume(finished).events())
    assert fingerprint(finished) == before


# Extending a run, and beginning with the weights of another


def test_a_finished_run_is_extended(finished: Path) -> None:
    four = Run.open(finished).metrics()
    (finished / "report.html").write_text("of four updates")
    events = list(Training.resume(finished, updates=6).events())
    assert isinstance(events[0], Started)
    assert events[0].update == 4
    run = Run.open(finished)
    assert run.config == config(updates=6)
    assert run.metrics()[:4] == four
    assert [line["update"] for line in run.metrics()] == [1, 2, 3, 4, 5, 6]
    assert run.result().updates == 6
    assert not run.report_path.exists(), "the old one would be wrong"


def test_an_interrupted_run_gets_another_budget(tmp_path: Path) -> None:
    leave(Training.start(tmp_path / "run", config()).events(), 2, "break")
    assert [*Training.resume(tmp_path / "run", updates=3).events()][-1].updates == 3  # type: ignore[attr-defined]
    assert Run.open(tmp_path / "run").config.updates == 3


def test_the_budget_of_minutes_is_extended(tmp_path: Path) -> None:
    train(tmp_path / "run", minutes=1e-6)
    assert Run.open(tmp_path / "run").result().updates == 1
    with pytest.raises(UserError, match=r"updates: 9 is not allowed; expected more than 1 updates in .* minutes"):
        Training.resume(tmp_path / "run", updates=9)
    assert Run.open(tmp_path / "run").result().updates == 1, "a refusal changes nothing"
    [*_, last] = Training.resume(tmp_path / "run", minutes=0.0).events()
    assert isinstance(last, Finished)
    assert last.updates == 4


@pytest.mark.parametrize("updates", [1, 4, 0, 10**30])
def test_a_budget_that_is_spent_is_refused(finished: Path, updates: int) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"updates: \d+ is not allowed; expected") as error:
        Training.resume(finished, updates=updates)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_what_is_solved_is_not_extended(tmp_path: Path) -> None:
    training = Training.start(tmp_path / "run", config())
    training.state.solved, training.state.verified = True, 0
    list(training.events())
    with pytest.raises(UserError, match="and every training problem is solved"):
        Training.resume(tmp_path / "run", updates=9)


def test_the_weights_of_another_run(finished: Path, tmp_path: Path) -> None:
    training = Training.start(tmp_path / "warm", config(init=str(finished), seed=5, curriculum="uniform"))
    policy = training.trainer.policy
    for name, tensor in Run.open(finished).weights().items():
        assert torch.equal(policy.state_dict()[name], tensor)
    list(training.events())
    assert read_json(tmp_path / "warm" / "config.json")["init"] == str(finished)
    leave(
        Training.start(tmp_path / "cut", config(init=str(finished), seed=5, curriculum="uniform")).events(), 2, "break"
    )
    list(Training.resume(tmp_path / "cut").events())
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "warm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "nowhere"}, r"init: 'nowhere' is not allowed; run: 'nowhere' is not a run folder"),
        ({"policy": {"width": 16}}, r"init: .* is not allowed; .*weights\.safetensors: not the weights of TokenPolicy"),
        ({"task": "tutorial"}, r"init: .* is not allowed; "),
    ],
)
def test_weights_that_do_not_fit(finished: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Training.start(tmp_path / "warm", config(**{"init": str(finished), **changes}))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "warm").exists()


def test_the_command_extends(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelnative.cli import run

    assert run(["resume", str(finished), "--updates", "5"]) == 0
    assert Run.open(finished).result().updates == 5
    assert (finished / "report.html").stat().st_size > 1000


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    if sys.platform in ("darwin", "win32"):
        pytest.skip("file names are Unicode there")
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/run \xff"))
    train(path)
    assert mn.train(config=config(init=str(path)), out=Path(f"{path} warm")).updates == 4
    assert Run.open(Path(f"{path} warm")).config.init == str(path)
    assert json.loads((Path(f"{path} warm") / "config.json").read_bytes())["init"] == str(path)
