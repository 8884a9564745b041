"""Measures in processes of their own: one, or several that train together as `torchrun` starts them.

A process of its own starts with one thread, nothing in its memory, and is gone afterwards; what several of them do at
the same time is what a machine can do as a whole. `measure_in_processes` starts them; each runs `main`, and the first
of them prints a line of JSON for every message.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from modelnative.bench.environment import environment_speed
from modelnative.bench.training import Rate, product_rates, training_rates
from modelnative.errors import UserError
from modelnative.tasks import make_task
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.parallel import Group
from modelnative.training.recipes import recipe
from modelnative.training.trainer import Trainer

USUAL = 64  # the width whose matrix product is measured on every machine, so that machines can be compared
GRACE = 10  # seconds that processes have to end when they are asked to


@dataclass(frozen=True)
class MeasurementJob:
    """What to measure.

    Attributes:
        config: of the training; its task is what the environment's speed is measured on.
        seconds: for each measurement.
        compiled: measure the environment under `torch.compile`, too.
        threads: of one process that a matrix product and a training are measured with, too; 1 for none.
    """

    config: TrainConfig
    seconds: float
    compiled: bool = False
    threads: int = 1


@dataclass(frozen=True)
class MeasurementStarted:
    """A measurement starts."""

    name: str


@dataclass(frozen=True)
class PeakMemory:
    """The most memory that the processes held, all together, in bytes, before anything was compiled."""

    processes: int
    peak: int


@dataclass(frozen=True)
class Note:
    """Something that cannot be measured here, and why."""

    text: str


Message = MeasurementStarted | Rate | PeakMemory | Note


def measure_in_processes(job: MeasurementJob, processes: int, receive: Callable[[Message], None]) -> None:
    """Measure in several processes of one thread each, and pass on every message as it comes.

    Raises:
        UserError: a process has died, or cannot do what is asked for.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [
        sys.executable,
        *(launcher if processes > 1 else []),
        "-m",
        __name__,
        json.dumps({**vars(job), "config": job.config.model_dump()}),
    ]
    environment = {
        **os.environ,
        # They import what this process could: a task in the folder that the command was called in, say.
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which ends the others
        )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("{"):  # a task may print, too
                    receive(_read(json.loads(line)))
            code = child.wait()
        finally:
            _end(child)
        if code:
            said.seek(0)
            # The first error is the cause; the launcher's own, and those of processes left alone, come after it.
            reason = re.search(r"\w+Error: .+", said.read())
            raise UserError(
                f"bench: a measuring process ended with exit code {code} ({reason[0] if reason else 'without a word'})"
            )


def _read(line: dict[str, Any]) -> Message:
    kind = line.pop("kind")
    if kind == "error":
        raise UserError(line["text"])
    if kind == "Rate":
        return Rate.of(line)
    return {"MeasurementStarted": MeasurementStarted, "PeakMemory": PeakMemory, "Note": Note}[kind](**line)


def _end(child: subprocess.Popen[str]) -> None:
    """Ask, wait, force. The launcher passes on what it is asked."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def measure(job: MeasurementJob) -> Iterator[Message]:
    """All measurements, one after the other, in this process and those that it trains with."""
    config, seconds = job.config, job.seconds
    torch.set_num_threads(1)
    task = make_task(config.task, **config.options)
    trainer = Trainer(task, config)
    group = trainer.group

    def together(name: str, unit: str, rates: list[float], compile_seconds: float = 0.0) -> Rate:
        """The sum over the processes, chunk by chunk."""
        (total,) = group.add([torch.tensor(rates, dtype=torch.float64)])
        return Rate(name, unit, group.size, torch.get_num_threads(), tuple(total.tolist()), compile_seconds)

    for width in dict.fromkeys((USUAL, config.policy.width)):
        for threads in dict.fromkeys((1, job.threads)):
            yield from _begin(product_name(width) + (f", {threads} threads" if threads > 1 else ""), group)
            torch.set_num_threads(threads)
            yield together(product_name(width), "GFLOP/s", product_rates(width, seconds))
            torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(config.seed + group.rank)
    yield from _begin("environment", group)
    yield together("environment", "steps/s", list(environment_speed(task, config.episodes, seconds, generator).rates))
    yield from _begin("rollout, update and training", group)
    rates = training_rates(trainer, seconds)
    for part in ("rollout", "update", "training"):
        yield Rate(part, "steps/s", group.size, 1, getattr(rates, part))
    if job.threads > 1:
        yield from _begin(f"training with {job.threads} threads", group)
        shared = training_rates(Trainer(task, with_fields(config, {"threads": job.threads})), seconds)
        for part in ("rollout", "update", "training"):
            yield Rate(part, "steps/s", group.size, job.threads, getattr(shared, part))
    yield PeakMemory(group.size, int(group.add([torch.tensor(peak_memory())])[0]))
    if job.compiled:
        yield from _begin("environment, after compiling for up to a minute", group)
        try:
            speed = environment_speed(task, config.episodes, seconds, generator, compiled=True)
        except RuntimeError as error:
            yield Note(
                f"environment, compiled: torch.compile does not work here ({str(error).strip().splitlines()[0]})"
            )
        else:
            yield together("environment, compiled", "steps/s", list(speed.rates), speed.compile_seconds)
    group.close()


def _begin(name: str, group: Group) -> Iterator[MeasurementStarted]:
    yield MeasurementStarted(name)
    group.broadcast_numbers([0.0])  # all begin at the same time


def product_name(width: int) -> str:
    """How the product of this width is called."""
    return f"matrix product, width {width}"


def peak_memory() -> int:
    """The most memory that this process has held, in bytes; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(argv: list[str]) -> int:
    """One of the processes."""
    given = json.loads(argv[0])
    job = MeasurementJob(**{**given, "config": with_fields(recipe(), given["config"])})
    is_leader = os.environ.get("RANK", "0") == "0"
    try:
        for message in measure(job):
            if is_leader:
                print_line({"kind": type(message).__name__, **dataclasses.asdict(message)})
    except UserError as error:
        if is_leader:  # what is wrong with the input is wrong for all
            print_line({"kind": "error", "text": str(error)})
        return 2
    return 0


def print_line(values: dict[str, Any]) -> None:
    """A line of JSON on standard output, at once."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # whoever asked has gone
        sys.exit(main(sys.argv[1:]))
