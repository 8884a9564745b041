"""Which curriculum learns three families in the fewest steps? Ten seeds each, in turn, on one core.

    python benchmarks/curricula.py                                  # all that is missing
    python benchmarks/curricula.py recall hops --curricula hints uniform
    python benchmarks/curricula.py --table                          # print the table of all results so far

All curricula of a family have the same recipe, the same seeds and the same budget of environment steps, hints included.
A seed is stopped once it reaches the goal: every stage succeeds greedily on at least 99% of its held-out problems (all
of them, or a sample of 10,000). Unlike `modelnative train`, failed problems are not practiced, so that only the
curricula are compared. Results are appended to benchmarks/curricula.jsonl, one line for each seed. Results that are
there with the same budget are not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from learning import processor

from modelnative import __version__
from modelnative.evidence.evaluate import evaluate
from modelnative.speed.machine import machine
from modelnative.tasks import make_task
from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.config import CURRICULA, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.rollout import play
from modelnative.training.trainer import Trainer

RESULTS = Path(__file__).with_suffix(".jsonl")
GOAL = 0.99
EVERY = 10  # updates between two looks at held-out problems
GLANCE = 1000  # held-out problems of each stage in such a look; only if it is good, all are played


@dataclass(frozen=True)
class Family:
    """A task with its options, and the environment steps that every curriculum has."""

    task: str
    options: dict[str, Any]
    steps: int


# Three stages each, as the published schedule (`tutorial`) knows no more.
RATE = 1e-2  # for all three, which are small
FAMILIES = {
    "hops": Family("hops", {"hops": 3, "size": 5}, 1_000_000),
    "recall": Family("recall", {"longest": 10}, 300_000),
    "arithmetic": Family("arithmetic", {}, 500_000),
}


def heldout(task: AnyTask) -> Problems:
    """Held-out problems of every stage, the same ones every time."""
    stage = torch.arange(len(task.spec.stages)).repeat_interleave(GLANCE)
    return task.sample(stage, torch.Generator().manual_seed(0), "heldout")


def measure(family: Family, curriculum: str, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Train the seeds in turn; yields a result once a seed reaches the goal or has used its steps."""
    task = make_task(family.task, **family.options)
    changes = {
        "options": family.options,
        "threads": 1,
        "evaluate_every": 10**9,
        "optimizer": {"learning_rate": RATE},
    }
    config = with_fields(recipe(family.task, curriculum=curriculum), changes)
    active = [Trainer(task, with_fields(config, {"seed": seed})) for seed in seeds]
    problems, start = heldout(task), time.perf_counter()
    while active:
        for trainer in active:  # so that progress, which a schedule follows, is the share of the steps that are spent
            updates = trainer.updates * family.steps / max(trainer.steps, 1)
            trainer.config = with_fields(trainer.config, {"updates": max(1, round(updates))})
        for trainer in list(active):
            trainer.update()
            spent = trainer.steps >= family.steps
            if not spent and (trainer.updates % EVERY or not promising(trainer, problems)):
                continue
            counts = evaluate(trainer.policy, task, split="heldout").counts
            reached = all(count.rate >= GOAL for count in counts)
            if reached or spent:
                active.remove(trainer)
                yield {
                    "curriculum": curriculum,
                    "seed": trainer.config.seed,
                    "reached": reached,
                    "updates": trainer.updates,
                    "episodes": trainer.episodes,
                    "steps": trainer.steps,
                    "heldout": {count.stage: count.rate for count in counts},
                    "seconds": time.perf_counter() - start,  # of all seeds that still trained
                    "together": len(seeds),
                    "machine": {
                        **machine(),
                        "processor": processor(),
                        "cores": os.cpu_count(),
                        "modelnative": __version__,
                    },
                }


def promising(trainer: Trainer, problems: Problems) -> bool:
    """Whether a sample of every stage reaches the goal."""
    return bool((play(trainer.policy, trainer.task, problems).success.view(-1, GLANCE).float().mean(1) >= GOAL).all())


def table(lines: list[dict[str, Any]]) -> str:
    """All results as Markdown, a table a family."""
    rows = []
    for name, family in FAMILIES.items():
        options = "".join(f" {option}={value}" for option, value in family.options.items())
        rows += [
            f"**{name}**{f' (`--options{options}`)' if options else ''}, {family.steps:,} steps at most",
            "",
            "| curriculum | seeds there | updates, median (range) | episodes, thousands | steps, thousands |"
            " seeds there, each stage | held-out success at the end, median (worst) |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for curriculum in CURRICULA:
            runs = [line for line in lines if case(line)[:2] == (name, curriculum) and line["budget"] == family.steps]
            if runs:
                rows.append(row(curriculum, runs))
        rows.append("")
    return "\n".join(rows)


def row(curriculum: str, runs: list[dict[str, Any]]) -> str:
    """One curriculum in one family."""
    rates = {stage: [run["heldout"][stage] for run in runs] for stage in runs[0]["heldout"]}
    ends = "; ".join(f"{stage} {statistics.median(own):.3f} ({min(own):.3f})" for stage, own in rates.items())
    good = "; ".join(f"{stage} {sum(rate >= GOAL for rate in own)}" for stage, own in rates.items())
    there = f"{sum(run['reached'] for run in runs)} of {len(runs)}"
    needed = " | ".join(
        median_range(runs, unit, scale) for unit, scale in (("updates", 1), ("episodes", 1e3), ("steps", 1e3))
    )
    return f"| {curriculum} | {there} | {needed} | {good} | {ends} |"


def median_range(runs: list[dict[str, Any]], unit: str, scale: float) -> str:
    """Median and range of what it took. Of seeds that did not get there, it is known only to be more than they had."""
    if not any(run["reached"] for run in runs):
        return "–"
    values = sorted(run[unit] / scale if run["reached"] else math.inf for run in runs)
    spent = [run[unit] / scale for run in runs if not run["reached"]]

    def text(value: float, bound: Callable[[list[float]], float]) -> str:
        return f"> {bound(spent):,.0f}" if value == math.inf else f"{value:,.0f}"

    return f"{text(statistics.median(values), min)} ({text(values[0], min)} – {text(values[-1], max)})"


def main() -> None:
    """Measure what is missing, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="family", help=", ".join(FAMILIES))
    parser.add_argument("--curricula", nargs="+", choices=CURRICULA, default=CURRICULA, help="all by default")
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to N - 1 (default 10)")
    parser.add_argument("--table", action="store_true", help="print the table of all results so far, measure nothing")
    arguments = parser.parse_args()
    unknown = set(arguments.families) - set(FAMILIES)
    if unknown:
        parser.error(f"unknown family {sorted(unknown)[0]!r}; choose from {', '.join(FAMILIES)}")
    torch.set_num_threads(1)
    if not arguments.table:
        for name in arguments.families or FAMILIES:
            for curriculum in arguments.curricula:
                budget = FAMILIES[name].steps
                done = {case(line) for line in results() if line["budget"] == budget}
                seeds = [seed for seed in range(arguments.seeds) if (name, curriculum, seed) not in done]
                for line in measure(FAMILIES[name], curriculum, seeds):
                    with open(RESULTS, "a", encoding="utf-8") as file:
                        file.write(json.dumps({"family": name, "budget": budget, **line}) + "\n")
                    rates = " ".join(f"{stage}={rate:.3f}" for stage, rate in line["heldout"].items())
                    print(name, curriculum, line["seed"], rates, f"{line['updates']} updates", flush=True)
    print(table(results()))


def case(line: dict[str, Any]) -> tuple[str, str, int]:
    """Which result a line is."""
    return line["family"], line["curriculum"], line["seed"]


def results() -> list[dict[str, Any]]:
    """All so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


if __name__ == "__main__":
    main()
