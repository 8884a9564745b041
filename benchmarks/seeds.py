"""What do ten seeds side by side cost, against ten one after another? Interleaved, in one run.

    python benchmarks/seeds.py --seeds 10 --rounds 5

Both do the same updates of the default recipe, from the same weights on; a round is a few updates of each. The ratio is
that of their times in a round; below it stand its median and range.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch

from modelnative.bench.machine import machine
from modelnative.tasks import make_task
from modelnative.training.parallel import Pool, cores
from modelnative.training.recipes import recipe
from modelnative.training.team import update_together
from modelnative.training.trainer import Trainer


def trainers(seeds: int) -> list[Trainer]:
    """The default recipe, with no evaluation on the side."""
    config = dataclasses.replace(recipe(), evaluate_every=1_000_000)
    return [Trainer(make_task("arithmetic"), dataclasses.replace(config, seed=seed)) for seed in range(seeds)]


def seconds(work: Callable[[], object], times: int) -> float:
    """How long it takes to do it so many times."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="networks (default 10)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--updates", type=int, default=4, help="updates of each in a round (default 4)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    alone, together, pool = trainers(arguments.seeds), trainers(arguments.seeds), Pool(cores())
    size = -(-arguments.seeds // pool.threads)
    groups = [together[i : i + size] for i in range(0, arguments.seeds, size)]
    ratios = []
    for number in range(arguments.rounds + 1):
        one = seconds(lambda: [trainer.update() for trainer in alone], arguments.updates)
        all_at_once = seconds(lambda: pool.map(update_together, groups), arguments.updates)
        if number:  # the first round warms up
            ratios.append(all_at_once / one)
            print(
                f"one after another {one:.2f} s, side by side {all_at_once:.2f} s, ratio {ratios[-1]:.2f}", flush=True
            )
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    print(f"ratio {spread}, {len(groups)} threads, {machine()}")


if __name__ == "__main__":
    main()
