"""The time that each of torch's operations takes in an update."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity

from modelnative.native import kernel_threads
from modelnative.tasks import make_task
from modelnative.training.config import TrainConfig
from modelnative.training.trainer import Trainer


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Redirect file descriptor 2: torch's profiler writes there from C++ when it starts and stops."""
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


@dataclass(frozen=True)
class ProfiledOperation:
    """The cost of one of torch's operations, averaged over updates.

    Attributes:
        name: torch's name of the operation.
        calls: in an update.
        seconds: in an update, without the operations that it calls.
        share: of the seconds of all operations.
    """

    name: str
    calls: float
    seconds: float
    share: float


def profile_updates(config: TrainConfig, updates: int = 3) -> list[ProfiledOperation]:
    """Profile some updates with one thread, after one that is not counted.

    Returns:
        All operations, the most expensive first.
    """
    with kernel_threads(1):
        trainer = Trainer(make_task(config.task, **config.options), config)
        trainer.update()
        with _without_stderr(), torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profile:
            for _ in range(updates):
                trainer.update()
    averages = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in averages)  # microseconds
    operations = [
        ProfiledOperation(
            name=event.key,
            calls=event.count / updates,
            seconds=event.self_cpu_time_total / updates / 1e6,
            share=event.self_cpu_time_total / total,
        )
        for event in averages
    ]
    return sorted(operations, key=lambda operation: -operation.seconds)
