"""How many steps a second does each family of tasks make, in one process and in two side by side?

    python benchmarks/steps.py                          # every family: about five minutes on two free cores
    python benchmarks/steps.py recall hops --processes 1
    python benchmarks/steps.py --seconds 1

A process has one thread. Its episodes are played in batches of 8,192, of all stages alike; drawing problems, beginning
episodes and replacing those that ended are part of the time. Actions of running episodes alone count as steps. The keys
are random, or those of the oracle, whose time is not measured: in `recall` and `dictionary` the first wrong key
ends an episode, so that random keys mostly measure the sampling of problems. Processes start each measurement at the
same time, and their rates are added. The table is printed as Markdown: the median of ten parts, and the range.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

import torch

from modelnative.speed.environment import environment_speed
from modelnative.speed.machine import machine
from modelnative.tasks import make_task

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "arithmetic": ("arithmetic", {}),
    "expressions": ("expressions", {}),
    "expressions, paper": ("expressions", {"feedback": "paper"}),
    "countdown": ("countdown", {}),
    "hops": ("hops", {}),
    "recall": ("recall", {}),
    "dictionary": ("dictionary", {}),
    "dictionary, store": ("dictionary", {"store": True}),
    "tutorial": ("tutorial", {}),
}
KEYS = {"random keys": False, "the oracle's keys": True}


def work(seed: int, families: list[str], episodes: int, seconds: float, start: Barrier, results: Connection) -> None:
    """One of the processes: the rates of every family and kind of keys, one after the other."""
    torch.set_num_threads(1)
    for family in families:
        name, options = FAMILIES[family]
        for oracle in KEYS.values():
            task, generator = make_task(name, **options), torch.Generator().manual_seed(seed)
            start.wait()
            results.send(environment_speed(task, episodes, seconds, generator, oracle=oracle).rates)


def measure(families: list[str], processes: int, episodes: int, seconds: float) -> Iterator[str]:
    """A cell of the table for every family and kind of keys."""
    context = multiprocessing.get_context("spawn")
    start, pipes = context.Barrier(processes), [context.Pipe(duplex=False) for _ in range(processes)]
    workers = [
        context.Process(target=work, args=(seed, families, episodes, seconds, start, results), daemon=True)
        for seed, (_, results) in enumerate(pipes)
    ]
    for worker in workers:
        worker.start()
    for _, results in pipes:
        results.close()  # otherwise a failed worker would not be noticed
    for _ in range(len(families) * len(KEYS)):
        rates = [sum(parts) / 1e6 for parts in zip(*(received.recv() for received, _ in pipes), strict=True)]
        yield f"{statistics.median(rates):.1f}M ({min(rates):.1f}–{max(rates):.1f})"
    for worker in workers:
        worker.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="family", help="; ".join(FAMILIES))
    parser.add_argument("--processes", type=int, default=2, help="side by side, after one alone (default 2)")
    parser.add_argument("--episodes", type=int, default=8192, help="in a batch (default 8192)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each measurement (default 5)")
    arguments = parser.parse_args()
    families = arguments.families or list(FAMILIES)
    unknown = set(families) - set(FAMILIES)
    if unknown:
        parser.error(f"unknown family {sorted(unknown)[0]!r}; choose from {'; '.join(FAMILIES)}")
    if arguments.processes < 1 or arguments.episodes < 1 or arguments.seconds <= 0:
        parser.error("expected at least one process, one episode, and some seconds")
    counts = sorted({1, arguments.processes})
    header = ["family", *(f"{keys}, {n} process{'es' * (n > 1)}" for n in counts for keys in KEYS)]
    rows = {family: [family] for family in families}
    for count in counts:
        cells = measure(families, count, arguments.episodes, arguments.seconds)
        for family in families:
            for keys in KEYS:
                cell = next(cells)
                rows[family].append(cell)
                print(f"{family}, {keys}, {count} process{'es' * (count > 1)}: {cell}", flush=True)
        list(cells)  # waits for the processes to end
    print(f"\nSteps/s in batches of {arguments.episodes:,}. {machine()}\n")
    for row in [header, ["---", *["---:"] * (len(header) - 1)], *rows.values()]:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
