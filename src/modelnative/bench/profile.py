"""Where the time of an update goes, operation by operation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity

from modelnative.tasks import make_task
from modelnative.training.config import TrainConfig
from modelnative.training.trainer import Trainer


@contextmanager
def _silent() -> Iterator[None]:
    """Discard standard error: torch's profiler writes there, past Python, that it starts and stops."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


@dataclass(frozen=True)
class Operation:
    """One of torch's operations, in a mean update.

    Attributes:
        name: torch's.
        calls: in an update.
        seconds: in the operation itself, without those that it called.
        share: of all operations' seconds.
    """

    name: str
    calls: float
    seconds: float
    share: float


def profile_updates(config: TrainConfig, updates: int = 3) -> list[Operation]:
    """The operations of some updates with one thread, the most expensive first; the update before is not counted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = Trainer(make_task(config.task, **config.options), config)
        trainer.update()
        profile = torch.profiler.profile(activities=[ProfilerActivity.CPU])
        with _silent():
            profile.start()
        for _ in range(updates):
            trainer.update()
        with _silent():
            profile.stop()
    finally:
        torch.set_num_threads(before)
    averages = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in averages)  # microseconds
    operations = [
        Operation(
            name=event.key,
            calls=event.count / updates,
            seconds=event.self_cpu_time_total / updates / 1e6,
            share=event.self_cpu_time_total / total,
        )
        for event in averages
    ]
    return sorted(operations, key=lambda operation: -operation.seconds)
