"""Measures in separate processes: one process, or several that train together under `torchrun`.

A new process starts with one thread and no memory, and it ends after the measurement. Several processes at the same
time show what the whole machine can do. `measure_in_processes` starts them, and each of them runs `main`. The first one
prints a line of JSON for every event.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import TypeAdapter

from modelnative.errors import UserError
from modelnative.speed.environment import environment_speed
from modelnative.speed.throughput import Throughput
from modelnative.speed.training import PARTS, matmul_rates, training_rates
from modelnative.tasks import make_task
from modelnative.tasks.importing import child_environment
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.launcher import launch
from modelnative.training.parallel import Group
from modelnative.training.trainer import Trainer

REFERENCE_WIDTH = 64  # its matrix product is measured on every machine, so that machines can be compared
GRACE = 10  # seconds that a process has to end after SIGTERM


@dataclass(frozen=True)
class MeasurementPlan:
    """What to measure.

    Attributes:
        config: the training; its task is also used to measure the environment.
        seconds: for each measurement.
        compiled: also measure the environment under `torch.compile`.
        threads: if more than 1, also measure a matrix product and a training with so many threads in one process.
    """

    config: TrainConfig
    seconds: float
    compiled: bool = False
    threads: int = 1


@dataclass(frozen=True)
class PeakMemory:
    """The peak memory of all processes together in bytes, before anything was compiled."""

    processes: int
    peak: int


@dataclass(frozen=True)
class BenchMessage:
    """A message of a measuring process.

    Attributes:
        kind: `started` (a measurement), `skipped` (a measurement that is not possible here) or `error`.
        text: the name of the measurement, or the reason.
    """

    kind: Literal["started", "skipped", "error"]
    text: str


MeasurementEvent = Throughput | PeakMemory | BenchMessage
PLAN_JSON = TypeAdapter(MeasurementPlan)
EVENT_JSON: TypeAdapter[MeasurementEvent] = TypeAdapter(MeasurementEvent)


def measure_in_processes(plan: MeasurementPlan, processes: int, report: Callable[[MeasurementEvent], None]) -> None:
    """Measure in so many processes of one thread each; `report` is called with every event as it happens.

    Raises:
        UserError: a process has failed.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    argument = PLAN_JSON.dump_json(plan).decode()
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", __name__, argument]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(threads=1),
            text=True,
            start_new_session=True,  # Ctrl-C reaches only this process, which ends the others
        )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("{"):  # a task may print, too
                    event = EVENT_JSON.validate_json(line)
                    if isinstance(event, BenchMessage) and event.kind == "error":
                        raise UserError(event.text)
                    report(event)
            code = child.wait()
        finally:
            _terminate(child)
        if code:
            errors.seek(0)
            # The first error is the cause; errors of the launcher and of the other processes follow.
            reason = re.search(r"\w+Error: .+", errors.read())
            raise UserError(
                f"bench: a measuring process ended with exit code {code} ({reason[0] if reason else 'no message'})"
            )


def _terminate(child: subprocess.Popen[str]) -> None:
    """End a process by SIGTERM, which the launcher passes on, and after `GRACE` seconds by SIGKILL."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def measure(plan: MeasurementPlan) -> Iterator[MeasurementEvent]:
    """Make all measurements in this process and those that it trains with."""
    config, seconds = plan.config, plan.seconds
    torch.set_num_threads(1)
    task = make_task(config.task, **config.options)
    trainer = Trainer(task, config)
    group = trainer.group

    def summed(measured: Throughput) -> Throughput:
        """The sum over the processes, for each repetition."""
        (total,) = group.add([torch.tensor(measured.rates, dtype=torch.float64)])
        return dataclasses.replace(measured, processes=group.size, rates=tuple(total.tolist()))

    def parts(rates: dict[str, list[float]], threads: int) -> Iterator[Throughput]:
        for part in PARTS:
            yield Throughput(part, "steps/s", group.size, threads, tuple(rates[part]))

    for width in dict.fromkeys((REFERENCE_WIDTH, config.policy.width)):
        for threads in dict.fromkeys((1, plan.threads)):
            yield _start(matmul_name(width) + (f", {threads} threads" if threads > 1 else ""), group)
            torch.set_num_threads(threads)
            yield summed(Throughput(matmul_name(width), "GFLOP/s", 1, threads, tuple(matmul_rates(width, seconds))))
            torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(config.seed + group.rank)
    yield _start("environment", group)
    yield summed(environment_speed(task, config.episodes, seconds, generator))
    yield _start("rollout, update and training", group)
    yield from parts(training_rates(trainer, seconds), 1)
    if plan.threads > 1:
        yield _start(f"training with {plan.threads} threads", group)
        threaded = Trainer(task, with_fields(config, {"threads": plan.threads}))
        yield from parts(training_rates(threaded, seconds), plan.threads)
    yield PeakMemory(group.size, int(group.add([torch.tensor(peak_memory())])[0]))
    if plan.compiled:
        yield _start("environment, after compiling for up to a minute", group)
        try:
            speed = environment_speed(task, config.episodes, seconds, generator, compiled=True)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            yield BenchMessage("skipped", f"environment, compiled: torch.compile does not work here ({reason})")
        else:
            yield summed(speed)
    group.close()


def _start(name: str, group: Group) -> BenchMessage:
    """Wait until all processes have reached this measurement."""
    group.broadcast_numbers([0.0])
    return BenchMessage("started", name)


def matmul_name(width: int) -> str:
    """The name of the matrix product of a policy width."""
    return f"matrix product, width {width}"


def peak_memory() -> int:
    """The peak memory of this process in bytes; 0 where the system does not report it."""
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(argv: list[str]) -> int:
    """Run one of the processes."""
    is_leader = launch().rank == 0
    try:
        for event in measure(PLAN_JSON.validate_json(argv[0])):
            if is_leader:
                print_line(event)
    except UserError as error:
        if is_leader:  # all processes have the same input, and fail alike
            print_line(BenchMessage("error", str(error)))
        return 2
    return 0


def print_line(event: MeasurementEvent) -> None:
    """Print an event as one line of JSON and flush."""
    sys.stdout.write(EVENT_JSON.dump_json(event).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent process has ended
        sys.exit(main(sys.argv[1:]))
