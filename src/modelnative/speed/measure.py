"""All measurements of one machine: matrix products, environment, training, and the time until a task is solved."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelnative.errors import require_number
from modelnative.speed.machine import machine
from modelnative.speed.processes import (
    BenchMessage,
    MeasurementEvent,
    MeasurementPlan,
    PeakMemory,
    matmul_name,
    measure_in_processes,
)
from modelnative.speed.throughput import Throughput
from modelnative.speed.training import PARTS, flops, forward_flops
from modelnative.tasks import make_task
from modelnative.tasks.contract.task import require
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.parallel import cores
from modelnative.training.recipes import BENCH, recipe

MIN_EPISODES = 16  # of a minibatch for each process, so that random assignment leaves no process without episodes


@dataclass(frozen=True)
class TimeToSolution:
    """One complete training.

    Attributes:
        seed: of the training.
        seconds, updates: its cost, without the final evaluation.
        solved: whether greedy play solves every problem.
        line: the evaluation in one line.
    """

    seed: int
    seconds: float
    updates: int
    solved: bool
    line: str


@dataclass(frozen=True)
class BenchResult:
    """The result of `bench`.

    Attributes:
        config: the training that was measured.
        seconds: duration of each measurement.
        rates: measurements with one process, then with several.
        memory: peak memory of one process, then of several.
        notes: what could not be measured, and why.
        solved: complete trainings, if requested.
    """

    config: TrainConfig
    seconds: float
    rates: tuple[Throughput, ...]
    memory: tuple[PeakMemory, ...]
    notes: tuple[str, ...]
    solved: tuple[TimeToSolution, ...]

    @property
    def processes(self) -> int:
        """The largest number of processes."""
        return max(rate.processes for rate in self.rates)

    def rate(self, name: str, processes: int, threads: int = 1) -> Throughput | None:
        """The measurement with so many processes of so many threads each, or None."""
        found = (r for r in self.rates if (r.name, r.processes, r.threads) == (name, processes, threads))
        return next(found, None)

    def matmul(self, workers: int) -> Throughput:
        """The fastest matrix product of the policy's width by at most `workers` threads, in one process or several."""
        name = matmul_name(self.config.policy.width)
        products = [rate for rate in self.rates if rate.name == name]
        return max((r for r in products if r.processes * r.threads <= workers), key=lambda rate: rate.median)

    @property
    def flops(self) -> dict[str, int] | None:
        """FLOP per step of rollout, update and training, or None for a core whose FLOP are not counted."""
        spec = make_task(self.config.task, **self.config.options).spec
        forward = forward_flops(spec, self.config.core, self.config.policy)
        return None if forward is None else flops(forward, self.config.loss.epochs)

    def utilization(self, name: str, processes: int, threads: int = 1) -> float | None:
        """FLOP/s of a part of the training, divided by that of the matrix product, or None if it is not known."""
        rate, work = self.rate(name, processes, threads), self.flops
        if rate is None or work is None or name not in work:
            return None
        return rate.median * work[name] / 1e9 / self.matmul(processes * threads).median

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = list(dict.fromkeys(rate.processes for rate in self.rates))
        return {
            "machine": machine(),
            "config": self.config.model_dump(),
            "seconds": self.seconds,
            "rates": [rate.as_dict() for rate in self.rates],
            "matmul": {str(count): self.matmul(count).as_dict() for count in counts},
            "flops": self.flops,
            "utilization": {str(count): {part: self.utilization(part, count) for part in PARTS} for count in counts},
            "memory": [dataclasses.asdict(memory) for memory in self.memory],
            "notes": self.notes,
            "solved": [dataclasses.asdict(solved) for solved in self.solved],
        }


def default_config(task: str = "arithmetic", core: str = "gru", algorithm: str = "ppo") -> TrainConfig:
    """The training that is measured by default: the recipe, with the fields of `BENCH`."""
    return with_fields(recipe(task, algorithm, core, BENCH["curriculum"]), BENCH)


def require_measurable(config: TrainConfig) -> None:
    """Raise a `UserError` unless this training can be measured."""
    make_task(config.task, **config.options)
    require(config.device == "cpu", "device", config.device, "cpu; other devices cannot be measured")
    require(config.threads == 1, "threads", config.threads, "1: cores are shared among processes")


def bench(
    config: TrainConfig,
    *,
    seconds: float,
    processes: int | None = None,
    compiled: bool = False,
    solve: int = 0,
    train: Callable[[TrainConfig], TimeToSolution] | None = None,
    progress: Callable[[str], None] | None = None,
) -> BenchResult:
    """Measure one process, then `processes` that train together; then train `solve` seeds to their end.

    Args:
        config: the training to measure.
        seconds: for each measurement, without start and warm-up.
        processes: number of processes of one thread each; one for each core by default.
        compiled: also measure the environment under `torch.compile`.
        solve: number of seeds of the task's recipe to train to their end, one after the other.
        train: trains one configuration to its end; required if `solve` is not 0.
        progress: called with one line before each measurement.

    Raises:
        UserError: an argument is not allowed, or a process has failed.
        KeyboardInterrupt: Ctrl-C; all processes are terminated.
    """
    require_measurable(config)
    limit = max(1, config.episodes // config.loss.minibatches // MIN_EPISODES)
    processes = min(limit, cores(limit=sys.maxsize)) if processes is None else processes
    require_number("seconds", seconds, 0, 1_000_000, "more than 0, at most 1000000", whole=False, above=True)
    allowed = f"from 1 to {limit}: {MIN_EPISODES} episodes of a minibatch for each"
    require_number("processes", processes, 1, limit, allowed)
    require_number("solve", solve, 0, 1000, "from 0 (nothing) to 1000")
    report = progress or (lambda line: None)
    events: list[MeasurementEvent] = []
    for count in dict.fromkeys((1, processes)):
        name = "1 process" if count == 1 else f"{count} processes"

        def keep(event: MeasurementEvent, name: str = name) -> None:
            events.append(event)
            if isinstance(event, BenchMessage) and event.kind == "started":
                report(f"{event.text}, {name}: {seconds:g} s")

        report(f"starting {name}")
        # If compilation fails in one process, it is not tried again in several.
        compiled = compiled and not _skipped(events)
        threads = processes if count == 1 else 1
        measure_in_processes(MeasurementPlan(config, seconds, compiled, threads), count, keep)
    usual = recipe(config.task, config.algorithm, config.core)
    solved = []
    for seed in range(solve):
        assert train is not None, "solve needs train"
        report(f"time to solution: seed {seed}")
        solved.append(train(with_fields(usual, {"options": config.options, "seed": seed})))
    return BenchResult(
        config,
        seconds,
        rates=tuple(event for event in events if isinstance(event, Throughput)),
        memory=tuple(event for event in events if isinstance(event, PeakMemory)),
        notes=_skipped(events),
        solved=tuple(solved),
    )


def _skipped(events: list[MeasurementEvent]) -> tuple[str, ...]:
    return tuple(event.text for event in events if isinstance(event, BenchMessage) and event.kind == "skipped")
