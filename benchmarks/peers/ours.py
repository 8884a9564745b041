"""The library's own trainer on the same task, driven like a peer.

    python benchmarks/peers/ours.py '{"episodes": 1024, "threads": 2, "loss": {"minibatches": 4}}'

prints its steps per second over ten seconds. The JSON is any fields of `TrainConfig`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from modelnative.runs.events import Finished, Verified
from modelnative.runs.training import Training
from modelnative.tasks import make_task
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.trainer import Trainer

# The peers measure nothing but what they learn from; between two of these the trainer does the same.
SPEED = {"loss": {"epochs": 1}, "evaluate_every": 1_000_000}


def configure(curriculum: str, fields: dict[str, Any]) -> TrainConfig:
    """The recipe under a curriculum, with some fields changed."""
    return with_fields(recipe(curriculum=curriculum), fields)


class Ours:
    """One training, as long as somebody asks for updates.

    Args:
        seed: of weights, problems and actions.
        curriculum: `hints` is the recipe; `uniform` plays, like the peers, whole problems of all stages.
        fields: of `TrainConfig`, nested ones as dictionaries; they win over `SPEED`.

    Attributes:
        parameters: numbers that are trained.
    """

    def __init__(self, seed: int = 0, *, curriculum: str = "hints", **fields: Any) -> None:
        config = with_fields(configure(curriculum, {**SPEED, "seed": seed}), fields)
        torch.set_num_threads(1)  # the library's threads each have episodes of their own
        self.trainer = Trainer(make_task(config.task, **config.options), config)
        self.parameters = sum(p.numel() for p in self.trainer.policy.parameters())

    def update(self) -> int:
        """Play and learn once; how many steps of running episodes that were, those of hints included."""
        before = self.trainer.steps
        return self.trainer.update().steps - before

    def close(self) -> None:
        """Wait for the other processes."""
        self.trainer.group.close()

    def agree(self, seconds: float) -> float:
        """The first process's clock, so that all of them make the same number of updates."""
        return self.trainer.group.broadcast_numbers([seconds])[0]


def solve(seconds: float, seed: int, curriculum: str = "hints", **fields: Any) -> dict[str, Any]:
    """Train as `modelnative train` does, until every training problem is verified or the time is over."""
    config = configure(curriculum, {"seed": seed, "minutes": seconds / 60, "updates": 1_000_000, **fields})
    curve = []
    finished: Finished | None = None
    with tempfile.TemporaryDirectory() as folder:
        training = Training.start(Path(folder) / "run", config)
        for event in training.events():
            if isinstance(event, Verified):
                rates = {stage: event.evaluation.total(stage).rate for stage in training.trainer.task.spec.stages}
                curve.append({"seconds": event.elapsed, "train": rates})
            elif isinstance(event, Finished):
                finished = event
    assert finished is not None
    rates: dict[str, dict[str, float]] = {}
    for count in finished.evaluation.counts:
        rates.setdefault(count.split, {})[count.stage] = count.rate
    return {
        "parameters": sum(p.numel() for p in training.trainer.policy.parameters()),
        "seconds": finished.seconds,
        "updates": finished.updates,
        "steps": finished.steps,
        "rates": rates,
        "curve": curve,
    }


def main() -> None:
    """Ten seconds of one configuration."""
    fields = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    ours = Ours(**fields)
    ours.update()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < 10:
        steps += ours.update()
    print(f"{steps / (time.perf_counter() - start):,.0f} steps/s, {ours.parameters:,} parameters, {fields}")


if __name__ == "__main__":
    main()
