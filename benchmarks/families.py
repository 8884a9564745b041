"""Is every family of tasks learned, and what of it generalises? Each run is a process of its own, one after another.

    python benchmarks/families.py                         # everything; hours on two cores
    python benchmarks/families.py hops recall --seeds 5
    python benchmarks/families.py expressions --minutes 30  # on a machine that is shared with other work
    python benchmarks/families.py --table                 # print the table of all results so far

Results are appended to benchmarks/families.jsonl, a line a run. Success is greedy, on problems held out; of stages too
large to list, on 10,000 drawn ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from learning import measure

from modelnative.evidence.evaluate import floor

RESULTS = Path(__file__).with_suffix(".jsonl")
BUDGET = ["--minutes", "10", "--updates", "1000000"]
UNSTAGED = ["--policy.no-stage-aware"]  # nothing is known of stages that were never trained on
FURTHER = ["--task", "hops", "--stages", "6", *UNSTAGED]
LARGER = ["--optimizer.learning-rate", "0.01"]  # the steps that a GRU once took by default
UNHINTED = ["--curriculum", "threshold", "--minutes", "3"]
IMITATING = ["--curriculum", "self-imitation"]
DISCOVER = ["--curriculum", "discover"]
PAPER = ["--task", "expressions", "--options", "feedback=paper"]
READER = ["--policy.reader", "gru", "--optimizer.anneal-below-failure", "0.5"]
TEXT = ["--task", "expressions", *READER, "--policy.width", "128"]
SUMMED = ["--task", "expressions", "--optimizer.anneal-below-failure", "0.5", "--policy.width", "128"]
IMITATED = ["--loss.hint-weight", "1"]
SEARCH = ["--task", "countdown", "--options", "tries=100", "feedback=tried", "--curriculum", "threshold"]
SEARCH += ["--policy.width", "128", "--policy.no-copy-head", "--optimizer.anneal-below-failure", "0.3"]
SEARCH += ["--loss.gamma", "0.99", "--loss.entropy-weight", "0.001"]
LONGER = [*PAPER, "operators=12", "memories=0", "shapes=seen", "--stages", "5", *UNSTAGED, *LARGER]
UNSEEN = ("shapes=unseen",)
# Flags, the stage that is to be solved, and stages never trained on.
FAMILIES: dict[str, tuple[list[str], str, list[str]]] = {
    "hops": (["--task", "hops"], "H6", []),
    "recall": (["--task", "recall"], "L100", []),
    "dictionary": (["--task", "dictionary", "--core", "transformer"], "K8", []),
    "dictionary, store": (["--task", "dictionary", "--options", "store=true"], "K8", []),
    "expressions, paper": (PAPER, "E5", []),
    "expressions": ([*TEXT, *IMITATED], "E5", []),
    "expressions, hints not imitated": (TEXT, "E5", []),
    "expressions, summed": ([*SUMMED, *IMITATED, "--minutes", "5"], "E5", []),
    "countdown, one try": (
        ["--task", "countdown", *READER, "--policy.width", "256", *IMITATED, "--minutes", "5"],
        "C4",
        [],
    ),
    "own tools": (["--task", "examples.own_tools:task"], "compare", []),
    "own tools, hints imitated": (["--task", "examples.own_tools:task", *IMITATED], "compare", []),
    "shop's bill": (["--task", "tests.helpers.bill:make"], "T0", []),
    "shop's bill, procedure given": (["--task", "tests.helpers.bill:make", "--options", "solve=true"], "T0", []),
    "recall, longer": (
        ["--task", "recall", "--options", "longest=1000", "--stages", "5", *UNSTAGED],
        "L100",
        ["L300", "L1000"],
    ),
    "expressions, further": (
        [*LONGER, "--target-success", "0.999"],
        "E5",
        ["E6", "E7", "E8", "E9", "E10", "E11", "E12"],
    ),
    "expressions, further, ends sooner": (LONGER, "E5", ["E6", "E7", "E8", "E9", "E10", "E11", "E12"]),
    "expressions, further, four cells": (
        [*PAPER, "operators=12", "memories=4", "shapes=seen", "--stages", "5", *UNSTAGED, *LARGER],
        "E5",
        ["E6", "E7", "E8", "E9", "E10", "E11", "E12"],
    ),
    "hops, further": (
        [*FURTHER, "--core", "mingru", "--options", "hops=12", "feedback=left", "count=shifted"],
        "H6",
        ["H7", "H8", "H9", "H10", "H11", "H12"],
    ),
    "hops, further, gru": (
        [*FURTHER, "--options", "hops=12", "feedback=left", "count=digits"],
        "H6",
        ["H7", "H8", "H9", "H10", "H11", "H12"],
    ),
    "expressions, paper, no hints": ([*PAPER, *UNHINTED, *LARGER], "E5", []),
    "countdown, a hundred tries, no hints": ([*SEARCH, "--minutes", "60", "--updates", "1100"], "C4", []),
    "countdown, one try, no hints": (["--task", "countdown", *UNHINTED], "C4", []),
    "hops, discover": (["--task", "hops", *DISCOVER], "H6", []),
    "dictionary, store, discover": (
        ["--task", "dictionary", "--options", "store=true", *DISCOVER, "--target-success", "0.98"],
        "K8",
        [],
    ),
    "own tools, discover": (["--task", "examples.own_tools:task", *DISCOVER, *IMITATED], "compare", []),
    "expressions, paper, self-imitation": (
        [*PAPER, *IMITATING, "--optimizer.learning-rate", "0.006", "--optimizer.anneal-below-failure", "0.5"],
        "E5",
        [],
    ),
    "expressions, self-imitation": ([*TEXT, *IMITATING], "E5", []),
    "arithmetic, alone": (["--task", "arithmetic", *IMITATING, "--curricula.no-search"], "T2", []),
    "own tools, self-imitation": (["--task", "examples.own_tools:task", *IMITATING], "compare", []),
    "bill, self-imitation": (["--task", "tests.helpers.bill:task", *IMITATING, *LARGER], "T0", []),
    "hops, no hints": (["--task", "hops", *UNHINTED, *LARGER], "H6", []),
    "recall, no hints": (["--task", "recall", *UNHINTED, *LARGER], "L100", []),
    "dictionary, no hints": (["--task", "dictionary", "--core", "transformer", *UNHINTED], "K8", []),
    "dictionary, store, no hints": (["--task", "dictionary", "--options", "store=true", *UNHINTED, *LARGER], "K8", []),
}


def table(lines: list[dict]) -> str:
    """The newest result of each seed as Markdown; success is rounded down."""
    rows = [
        "| run | seeds | stage | held-out success, each seed | seconds, median (range) | never trained on |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, (_, stage, further) in FAMILIES.items():
        newest = {line["seed"]: line for line in lines if line["recipe"] == name}
        runs = [newest[seed] for seed in sorted(newest)]
        if not runs:
            continue
        heldout = [run["rates"]["evaluation heldout"] for run in runs]
        seconds = [run["seconds"] for run in runs]
        beyond = "; ".join(f"{s} " + " ".join(f"{floor(rates[s])}" for rates in heldout) for s in further)
        unseen = [run["rates"].get(f"{UNSEEN[0]} heldout") for run in runs]
        if all(unseen):
            worst = {s: min(rates[s] for rates in unseen) for s in (stage, *further)}
            beyond += "; shapes never seen, worst seed: " + " ".join(f"{s} {floor(rate)}" for s, rate in worst.items())
        rows.append(
            f"| {name} | {len(runs)} | {stage} | {' '.join(f'{floor(rates[stage])}' for rates in heldout)} |"
            f" {statistics.median(seconds):.0f} ({min(seconds):.0f}–{max(seconds):.0f}) | {beyond} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="family", help="; ".join(FAMILIES))
    parser.add_argument("--seeds", type=int, default=5, help="so many (default 5)")
    parser.add_argument("--first-seed", type=int, default=0, help="from this one on (default 0)")
    parser.add_argument("--minutes", type=float, help="at most so many a run, instead of those of its recipe")
    parser.add_argument("--table", action="store_true", help="print the table of all results so far, measure nothing")
    arguments = parser.parse_args()
    unknown = set(arguments.families) - set(FAMILIES)
    if unknown:
        parser.error(f"unknown family {sorted(unknown)[0]!r}; choose from {'; '.join(FAMILIES)}")
    minutes = [] if arguments.minutes is None else ["--minutes", str(arguments.minutes)]
    if not arguments.table:
        for name in arguments.families or FAMILIES:
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                changed = UNSEEN if name.startswith("expressions, further") else ()
                line = measure(name, [*BUDGET, *FAMILIES[name][0], *minutes], seed, changed)
                with open(RESULTS, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(name, seed, line["line"], f"{line['seconds']:.1f} s, {line['updates']} updates", flush=True)
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
