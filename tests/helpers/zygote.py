"""Trains each job twice: without interruption, and killed (SIGKILL) at random moments. Prints one JSON line per job.

All trainings are forks of this process, so torch is imported only once. Usage: zygote.py FOLDER JOBS SEED
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from modelnative.runs.training import Training
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

UPDATES = 12
KILLS = 2
FIELDS = {
    "task": "worlds:Small",
    "updates": UPDATES,
    "episodes": 32,
    "checkpoint_every": 3,
    "evaluate_every": 4,
    "threads": 1,
    "policy": {"width": 16},
    "loss": {"num_generations": 4},
}


def fork(work: Callable[[], Any]) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def train(path: Path, job: dict[str, Any]) -> None:
    names = {name: value for name, value in job.items() if name != "fields"}
    config = with_fields(with_fields(recipe(**names), FIELDS), job.get("fields", {}))
    for _ in Training.start(path, config).events():
        pass


def resume(path: Path) -> None:
    for _ in Training.resume(path).events():
        pass


def kill(child: int, path: Path, chance: random.Random) -> int | None:
    """Kill a training at a random moment. Returns the number of updates written, or None if it had finished."""

    def written() -> int:
        return (path / "metrics.jsonl").read_bytes().count(b"\n") if (path / "metrics.jsonl").exists() else 0

    wanted = written() + chance.randrange(1, UPDATES // KILLS)
    while written() < wanted and not (path / "result.json").exists():
        time.sleep(0.001)
    time.sleep(chance.random() * 0.02)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return written() if os.WIFSIGNALED(status) and not (path / "result.json").exists() else None


def main() -> None:
    torch.set_num_threads(1)
    folder, jobs, chance = Path(sys.argv[1]), json.loads(sys.argv[2]), random.Random(int(sys.argv[3]))
    for job in jobs:
        name = "-".join(choice for choice in job.values() if isinstance(choice, str))
        whole, broken = folder / f"{name}-whole", folder / f"{name}-broken"
        reference = fork(lambda path=whole, job=job: train(path, job))
        kills = []
        child = fork(lambda path=broken, job=job: train(path, job))
        for _ in range(KILLS):
            while not (broken / "checkpoints" / "000000.safetensors").exists():
                time.sleep(0.001)
            kills.append(kill(child, broken, chance))
            if kills[-1] is None:
                break
            child = fork(lambda path=broken: resume(path))
        if kills[-1] is not None:
            assert os.waitpid(child, 0)[1] == 0, f"{name}: the last continuation failed"
        assert os.waitpid(reference, 0)[1] == 0, f"{name}: the reference failed"
        print(json.dumps({"name": name, "kills": kills}), flush=True)


if __name__ == "__main__":
    main()
