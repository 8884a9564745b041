"""How well does `modelnative.training.update_memory` estimate the memory of an update?

    python benchmarks/memory.py                 # every core, two sizes each: about two minutes
    python benchmarks/memory.py transformer

Each training is a process of its own. Shown are the most memory that its second update needed beside what the process
had before the first (its largest resident set), the estimate, and how many times the estimate that is. The task is
`arithmetic`, in which no key ends an episode, because the estimate is of episodes as long as the horizon allows. The
table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.arithmetic.task import Arithmetic, ArithmeticState
from modelnative.tasks.contract.task import Step
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe
from modelnative.training.trainer import LEARNED_AT_ONCE, PLAYED_AT_ONCE, Trainer
from modelnative.training.update_memory import FACTOR, update_memory

CORES = ("gru", "mingru", "transformer", "memoryless")
SIZES: list[dict[str, Any]] = [
    {"episodes": 16384, "policy": {"width": 128}},
    {"options": {"horizon": 200}, "episodes": 512, "policy": {"width": 64}, "loss": {"minibatches": 2}},
]


class Whole(Arithmetic):
    """Only the horizon ends an episode."""

    def step(self, state: ArithmeticState, action: Tensor) -> Step[ArithmeticState]:
        """As the calculator, which goes on."""
        step = super().step(state, action)
        on = torch.zeros_like(step.done)
        return dataclasses.replace(step, done=on, state=dataclasses.replace(step.state, done=on))


def peak() -> int:
    """The largest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(core: str, changes: dict[str, Any]) -> tuple[int, int]:
    """The memory of an update, estimated and measured."""
    config = with_fields(recipe(core=core, curriculum="uniform"), changes)
    trainer = Trainer(Whole(**config.options), config)
    estimate = update_memory(trainer, PLAYED_AT_ONCE, LEARNED_AT_ONCE).total
    before = peak()
    trainer.update()
    trainer.update()
    return estimate, peak() - before


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cores", nargs="*", default=CORES, metavar="CORE", help=f"of {', '.join(CORES)}; default: all")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.one:
        print(json.dumps(measure(found.one[0], json.loads(found.one[1]))))
        return
    print("| core | size | estimate | measured | measured / estimate |\n|---|---|---:|---:|---:|")
    for core in found.cores:
        for changes in SIZES:
            one = [sys.executable, str(Path(__file__)), "--one", core, json.dumps(changes)]
            estimate, measured = json.loads(subprocess.run(one, check=True, capture_output=True, text=True).stdout)
            horizon = changes.get("options", {}).get("horizon", 12)
            size = f"{changes['episodes']:,} episodes, horizon {horizon}, width {changes['policy']['width']}"
            share = measured / estimate
            mark = "" if 1 / FACTOR <= share <= FACTOR else " (outside)"
            print(f"| {core} | {size} | {estimate >> 20} MiB | {measured >> 20} MiB | {share:.2f}{mark} |", flush=True)


if __name__ == "__main__":
    main()
