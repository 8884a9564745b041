"""All figures of one machine: how fast it computes, and how fast a training is on it."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelnative.bench.machine import machine
from modelnative.bench.processes import (
    MeasurementJob,
    MeasurementStarted,
    Message,
    Note,
    PeakMemory,
    measure_in_processes,
    product_name,
)
from modelnative.bench.training import Rate, flops, forward_flops
from modelnative.errors import UserError
from modelnative.tasks import make_task
from modelnative.tasks.contract.task import require
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.parallel import cores
from modelnative.training.recipes import BENCH, recipe

EPISODES_PER_PROCESS = 16  # of a minibatch; they are drawn at random, and no process may be left without any


@dataclass(frozen=True)
class Solution:
    """One training to its end.

    Attributes:
        seed: its seed.
        seconds, updates: what it cost; without the final evaluation.
        solved: whether every problem is right, played greedily.
        line: the verdict.
    """

    seed: int
    seconds: float
    updates: int
    solved: bool
    line: str


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Attributes:
        config: of the training that was measured.
        seconds: for each measurement.
        rates: of one process, then of several.
        memory: of one process, then of several.
        notes: what could not be measured, and why.
        solved: trainings to their end, if any were asked for.
    """

    config: TrainConfig
    seconds: float
    rates: tuple[Rate, ...]
    memory: tuple[PeakMemory, ...]
    notes: tuple[str, ...]
    solved: tuple[Solution, ...] = ()

    @property
    def processes(self) -> int:
        """How many worked together at most."""
        return max(rate.processes for rate in self.rates)

    def rate(self, name: str, processes: int, threads: int = 1) -> Rate | None:
        """A measurement in so many processes of so many threads each, if there is one."""
        found = (r for r in self.rates if (r.name, r.processes, r.threads) == (name, processes, threads))
        return next(found, None)

    def ceiling(self, processes: int) -> Rate:
        """The fastest matrix product of the policy's width: of one thread, or of all cores, however they share it."""
        name = product_name(self.config.policy.width)
        products = [rate for rate in self.rates if rate.name == name]
        return max((r for r in products if r.processes * r.threads <= processes), key=lambda rate: rate.median)

    @property
    def flops(self) -> dict[str, int] | None:
        """Multiplications and additions in a step's rollout, update and both; None where they are not counted."""
        spec = make_task(self.config.task, **self.config.options).spec
        forward = forward_flops(spec, self.config.core, self.config.policy)
        return None if forward is None else flops(forward, self.config.loss.epochs)

    def share(self, name: str, processes: int, threads: int = 1) -> float | None:
        """Share of the ceiling that a part of the training reaches."""
        rate, work = self.rate(name, processes, threads), self.flops
        if rate is None or work is None or name not in work:
            return None
        return rate.median * work[name] / 1e9 / self.ceiling(processes * threads).median

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = list(dict.fromkeys(rate.processes for rate in self.rates))
        return {
            "machine": machine(),
            "config": self.config.model_dump(),
            "seconds": self.seconds,
            "rates": [rate.as_dict() for rate in self.rates],
            "ceiling": {str(count): self.ceiling(count).as_dict() for count in counts},
            "flops": self.flops,
            "share": {str(count): {part: self.share(part, count) for part in flops(0, 1)} for count in counts},
            "memory": [dataclasses.asdict(memory) for memory in self.memory],
            "notes": self.notes,
            "solved": [dataclasses.asdict(solved) for solved in self.solved],
        }


def usual_config(task: str = "arithmetic", core: str = "gru", algorithm: str = "ppo") -> TrainConfig:
    """What is measured by default: the recipe, with the fields of `BENCH`."""
    return with_fields(recipe(task, algorithm, core, BENCH["curriculum"]), BENCH)


def check(config: TrainConfig) -> None:
    """Raise a `UserError` unless this can be measured."""
    make_task(config.task, **config.options)
    if config.device != "cpu":
        raise UserError(f"device: {config.device!r} is not allowed; expected cpu, which is what is measured")
    if config.threads != 1:
        raise UserError(f"threads: {config.threads} is not allowed; expected 1: cores are shared among processes")


def bench(
    config: TrainConfig,
    *,
    seconds: float,
    processes: int | None = None,
    compiled: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Bench:
    """Measure in one process, then in `processes` that train one policy together.

    Args:
        config: of the training.
        seconds: for each measurement; starting and warming up come on top.
        processes: of one thread each; by default one for each core.
        compiled: measure the environment under `torch.compile`, too.
        progress: is called with a line before everything that takes time.

    Raises:
        UserError: an argument is not sensible, or a process has died.
        KeyboardInterrupt: Ctrl-C; nothing stays behind.
    """
    check(config)
    limit = max(1, config.episodes // config.loss.minibatches // EPISODES_PER_PROCESS)
    processes = min(limit, cores(limit=sys.maxsize)) if processes is None else processes
    allowed = f"from 1 to {limit}: {EPISODES_PER_PROCESS} episodes of a minibatch for each"
    require(0 < seconds < math.inf, "seconds", seconds, "more than 0")
    require(1 <= processes <= limit, "processes", processes, allowed)
    report = progress or (lambda line: None)
    rates: list[Rate] = []
    memory: list[PeakMemory] = []
    notes: list[str] = []
    for count in dict.fromkeys((1, processes)):
        where = "1 process" if count == 1 else f"{count} processes"

        def receive(message: Message, where: str = where) -> None:
            if isinstance(message, MeasurementStarted):
                report(f"{message.name}, {where}: {seconds:g} s")
            elif isinstance(message, Rate):
                rates.append(message)
            elif isinstance(message, PeakMemory):
                memory.append(message)
            elif isinstance(message, Note):
                notes.append(message.text)

        report(f"starting {where}")
        # What cannot be compiled by one process cannot by several, and each would take its time to find out.
        job = MeasurementJob(config, seconds, compiled and not notes, processes if count == 1 else 1)
        measure_in_processes(job, count, receive)
    return Bench(config, seconds, tuple(rates), tuple(memory), tuple(notes))
