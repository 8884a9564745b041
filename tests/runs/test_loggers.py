"""Every logger has every number of a training once, also of one that was killed and continued."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from modelnative.errors import UserError
from modelnative.runs.loggers import make_loggers, scalars
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.registry import LOGGERS

FIELDS = {
    "task": "worlds:Small",
    "updates": 8,
    "episodes": 32,
    "checkpoint_every": 3,
    "evaluate_every": 4,
    "threads": 1,
    "policy": {"width": 16},
    "loss": {"minibatches": 4},
}
Logged = dict[str, list[tuple[int, float]]]  # by name: update and value, in the order of their updates


def config(log: str) -> TrainConfig:
    made: TrainConfig = with_fields(recipe(), {**FIELDS, "log": log})
    return made


def tensorboard(run: Run) -> Logged:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kept = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    kept.Reload()
    return {name: sorted((one.step, one.value) for one in kept.Scalars(name)) for name in kept.Tags()["scalars"]}


def mlflow(run: Run) -> Logged:
    from mlflow import MlflowClient

    client = MlflowClient()
    (kept,) = client.search_runs([client.get_experiment_by_name("modelnative").experiment_id])
    assert kept.info.run_name == run.path.name
    assert kept.info.status == "FINISHED"
    return {
        name: sorted({(one.step, one.value) for one in client.get_metric_history(kept.info.run_id, name)})
        for name in kept.data.metrics
    }


def trackio(run: Run) -> Logged:
    from trackio.sqlite_storage import SQLiteStorage

    found: Logged = {}
    for line in SQLiteStorage.get_logs("modelnative", run.path.name):
        for name, value in line.items():
            if isinstance(value, float):
                found.setdefault(name, []).append((line["step"], value))
    return found


def wandb(run: Run) -> Logged:
    """From the files that `wandb sync` reads: records in the log format of LevelDB, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, dict[int, float]] = {}
    for path in sorted((run.path / "wandb").glob("offline-run-*/*.wandb")):
        content, place, data = path.read_bytes(), 7, b""
        while place + 7 <= len(content):
            if 32768 - place % 32768 < 7:  # no header fits into the rest of a block
                place += 32768 - place % 32768
                continue
            _, length, kind = struct.unpack_from("<IHB", content, place)
            data = data * (kind in (3, 4)) + content[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(data)
                values = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                for name, value in values.items():
                    if not name.startswith("_"):
                        step = int(values.get("_step", record.history.step.num))
                        found.setdefault(name, {})[step] = float(json.loads(value))
    return {name: sorted(values.items()) for name, values in found.items()}


READERS: dict[str, Callable[[Run], Logged]] = {
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "trackio": trackio,
    "wandb": wandb,
}


@pytest.mark.parametrize("name", LOGGERS)
@pytest.mark.filterwarnings("ignore")  # of the loggers' own packages
def test_every_number_is_logged_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlflow"))
    pytest.importorskip(name)  # Trackio reads its variable when it is imported
    child = os.fork()
    if not child:  # killed after an update that no checkpoint has
        for event in Training.start(tmp_path / "run", config(name)).events():
            if getattr(getattr(event, "metrics", None), "update", 0) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    for _ in Training.resume(tmp_path / "run").events():
        pass

    run = Run.open(tmp_path / "run")
    logged = READERS[name](run)
    expected: Logged = {}
    for line in run.metrics():
        for key, value in scalars(line, run.task().spec.stages).items():
            expected.setdefault(key, []).append((line["update"], value))
    timings = {key for key in expected if key.startswith("timing/")}
    assert set(expected) <= set(logged)
    for key in expected.keys() - timings:
        assert [step for step, _ in logged[key]] == [step for step, _ in expected[key]], key
        for (_, found), (_, value) in zip(logged[key], expected[key], strict=True):
            assert math.isclose(found, value, rel_tol=1e-6, abs_tol=1e-9), key
    assert {f"final/{stage}" for stage in run.task().spec.stages} <= set(logged)


def test_a_missing_package_is_named_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(UserError, match=r"mlflow: it is not installed; .* pip install 'modelnative\[mlflow\]'"):
        Training.start(tmp_path / "run", config("mlflow"))
    assert not (tmp_path / "run").exists()


def test_no_logger_is_the_default() -> None:
    assert make_loggers(TrainConfig().log) == []


def test_a_missing_number_is_left_out() -> None:
    line = {"entropy": 0.5, "success": [None, 0.25], "greedy": None, "stages": ["a", "b"], "timing": {"seconds": 1}}
    assert scalars(line, ("easy", "hard")) == {"entropy": 0.5, "success/hard": 0.25, "timing/seconds": 1.0}
