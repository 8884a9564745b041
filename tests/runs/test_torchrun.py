"""Runs of several processes: one voice, one folder, and what is left when one of them dies."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ranked import config
from ranks import HELPERS, SOURCE, Ranks

from modelnative.runs.files import read_tensors
from modelnative.runs.run import Run
from modelnative.runs.training import Finished, Training

TRAIN = ["--task", "worlds:Small", "--episodes", "16", "--policy.width", "8"]


def test_a_run_of_several_processes(tmp_path: Path, ranks: Ranks) -> None:
    """Verifications and measurements included, all ranks have the same events to the end; one of them writes."""
    fields = json.dumps({"episodes": 16, "updates": 8, "minutes": 1000.0})
    alone, *several = (ranks("ranked:follow", size, str(tmp_path), fields) for size in (1, 2, 4))
    kinds = alone[0][0]
    assert kinds.count("Verified") > 1
    for found in several:
        assert all(told == found[0] for told in found), "seconds and verdicts, too"
        assert found[0][:2] == alone[0][:2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["of 1", "of 2", "of 4"]
    for path in tmp_path.iterdir():
        run = Run.open(path)
        assert [line["update"] for line in run.metrics()] == [*range(1, 9)]
        assert run.result_path.exists()


def stopped(path: Path, update: int, updates: int = 6) -> Path:
    """A run that one process has broken off."""
    training = Training.start(path, config(json.dumps({"episodes": 10, "updates": updates})))
    for _ in range(update):
        training.run.append([dataclasses.asdict(training.trainer.update())])
    training.run.save(training.trainer, dataclasses.asdict(training.state))
    return path


def test_any_number_of_processes_continues(tmp_path: Path, ranks: Ranks) -> None:
    whole = Training.start(tmp_path / "whole", config(json.dumps({"episodes": 10, "updates": 6})))
    list(whole.events())
    expected = read_tensors(whole.run.checkpoints()[-1])[0]
    for size in (1, 2, 3):
        run = stopped(tmp_path / f"by {size}", 3)
        assert [found[:2] for found in ranks("ranked:resume", size, str(run))] == [["Finished", 6]] * size
        tensors = read_tensors(Run.open(run).checkpoints()[-1])[0]
        assert set(tensors) == set(expected)
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4, msg=f"{name}, {size} processes")


def test_who_sees_another_checkpoint_is_refused(tmp_path: Path, ranks: Ranks) -> None:
    ahead, behind = stopped(tmp_path / "ahead", 3), stopped(tmp_path / "behind", 2)
    alone, refused = ranks("ranked:resume", 2, str(ahead), str(behind))
    assert alone.startswith("rank 0: another of the 2 processes is gone")
    assert refused.startswith("run: the newest checkpoint found here is 2, and by rank 0 3; the run must be on a file")


def test_who_was_started_differently_is_refused(tmp_path: Path, ranks: Ranks) -> None:
    leader, other = ranks("ranked:differ", 2, str(tmp_path))
    assert leader == ""
    assert other == "seed: 1 is not what rank 0 has, 0; start all with one command"


def test_only_one_process_speaks(tmp_path: Path, ranks: Ranks) -> None:
    """Of a mistake that all make, of one that rank 0 alone sees at the start, and of one that it sees on the way."""
    run = tmp_path / "run"
    first, *others = ranks("ranked:command", 3, "train", *TRAIN, "--updates", "2", "--out", str(run))
    assert first[0] == 0
    assert "Next: modelnative evaluate" in first[1]
    assert others == [[0, "", ""]] * 2
    for words, message in (
        (["train", "--updates", "0"], "updates: 0 is not allowed"),
        (["train", *TRAIN, "--out", str(run)], "exists already"),
        (["resume", str(run)], "is finished"),
    ):
        found = ranks("ranked:command", 3, *words)
        assert [code for code, *_ in found] == [2, 2, 2]
        assert not any(said for _, said, _ in found)
        assert sum(bool(complaint) for *_, complaint in found) == 1
        assert any(message in complaint and complaint.count("\n") == 1 for *_, complaint in found), message
    found = ranks("ranked:full", 3, str(tmp_path))
    assert [code for code, *_ in found] == [2, 2, 2], "none waits for the one that is gone"
    assert "No space left on device" in found[0][2]
    assert [complaint for *_, complaint in found[1:]] == ["", ""]
    assert [path.stem for path in Run.open(tmp_path / "full").checkpoints()] == ["000000"]


def torchrun(run: Path) -> subprocess.Popen[str]:
    """A training by two processes that will not end by itself."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(HELPERS)])}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    fields = [*TRAIN, "--updates", "100000", "--checkpoint-every", "5", "--out", str(run)]
    return subprocess.Popen(
        [*launch, "-m", "modelnative", "train", *fields],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers(of: int) -> list[int]:
    """The processes that `torchrun` has started, in the order of their start."""
    return [int(child) for child in Path(f"/proc/{of}/task/{of}/children").read_text().split()]


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.01)


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for the workers in /proc")
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_a_word_and_a_checkpoint(tmp_path: Path, victim: int) -> None:
    run = tmp_path / "run"
    launched = torchrun(run)
    wait_for(run / "checkpoints" / "000010.safetensors")
    started = workers(launched.pid)
    assert len(started) == 2
    os.kill(started[victim], signal.SIGKILL)
    said, complained = launched.communicate(timeout=60)
    assert launched.returncode != 0
    lines = [line for line in complained.splitlines() if line.startswith("modelnative: error")]
    assert len(lines) == 1, complained
    assert re.search(rf"rank {1 - victim}: another of the 2 processes is gone \(.*\); the newest checkpoint", lines[0])
    assert all(map(gone, started))
    assert "Traceback" not in said
    # One process goes on where two have stopped.
    training = Training.resume(run)
    assert training.trainer.updates >= 10
    events = []
    for event in training.events():
        events.append(event)
        training.state.solved = True
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_a_signal_to_torchrun_loses_nothing(tmp_path: Path, number: int) -> None:
    run = tmp_path / "run"
    launched = torchrun(run)
    wait_for(run / "checkpoints" / "000005.safetensors")
    os.kill(launched.pid, number)
    said, complained = launched.communicate(timeout=60)
    opened = Run.open(run)
    again = f"modelnative resume {run} --trust worlds"
    assert said.splitlines()[-1] == f"stopped at update {len(opened.metrics())}; continue with: {again}"
    assert opened.checkpoints()[-1].stem == f"{len(opened.metrics()):06d}"
    assert "modelnative: error" not in complained
