"""Small sweeps, and fingerprints that do not depend on how often a trial was killed."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import worlds  # noqa: F401 (what this process has imported, a folder may name)

from modelnative.runs.files import read_json, write_json
from modelnative.runs.run import Run

ROOT = Path(__file__).parents[2]
TINY = {
    "task": "worlds:Small",
    "updates": 4,
    "episodes": 16,
    "checkpoint_every": 2,
    "evaluate_every": 4,
    "policy": {"width": 8},
    "loss": {"num_generations": 4},
}
UPDATES = 30  # enough for a trial to be killed while it runs


def fingerprint(run: Run) -> dict[str, str]:
    """Hashes of the results of a run, without times."""
    result = {k: v for k, v in read_json(run.result_path).items() if k not in ("seconds", "machine")}
    metrics = [{k: v for k, v in line.items() if k != "timing"} for line in run.metrics()]
    contents = {"result": json.dumps(result), "metrics": json.dumps(metrics)}
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}
    return {**hashes, "weights": hashlib.sha256(run.weights_path.read_bytes()).hexdigest()}


def processes(folder: Path) -> list[int]:
    """Process ids of the running trials of a sweep folder, found by the arguments of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if b"-c" in arguments and str(folder).encode() in arguments:
            found.append(int(path.parent.name))
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Wait until the condition returns a true value; returns it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return value


def when(condition: Callable[[], Any], act: Callable[[], Any]) -> threading.Thread:
    """Call `act` in a thread as soon as the condition is true, because a trial lasts only about a second."""

    def wait() -> None:
        wait_for(condition)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def updates(run: Run) -> int:
    """Number of updates that a run has written; 0 when it is finished."""
    path = run.metrics_path
    return path.read_bytes().count(b"\n") if path.exists() and not run.result_path.exists() else 0


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "helpers")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def write_result(run: Run, share: float = 1.0, seconds: float = 2.0) -> None:
    """Write the part of a result that a table needs."""
    counts = [
        {"stage": stage, "split": split, "successes": int(share * 10), "problems": 10}
        for stage in ("T0", "T1")
        for split in ("train", "heldout")
    ]
    evaluation = {"greedy": True, "counts": counts}
    costs = {"updates": 3, "episodes": 48, "steps": 100, "seconds": seconds}
    write_json(run.result_path, {"evaluation": evaluation, "sampled": evaluation, **costs})
