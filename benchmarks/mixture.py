"""One network for several tasks: is each part solved, and do the parts share the network?

    python benchmarks/mixture.py                 # ten seeds; about half an hour on two cores
    python benchmarks/mixture.py --seeds 2 --runs runs/mixture
    python benchmarks/mixture.py --table         # print the tables of all results so far, measure nothing

Each training is `modelnative train --task arithmetic+recall+hops --options recall.longest=10`, with the default recipe,
in a process of its own, one after another. Then the units that the last stage of each part needs are removed in all
three (`modelnative inspect --units`). Results are appended to benchmarks/mixture.jsonl, a line a seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import modelnative as mn
from modelnative.evidence.evaluate import floor
from modelnative.evidence.sharing import sharing
from modelnative.speed.machine import machine

RESULTS = Path(__file__).with_suffix(".jsonl")
TASK = ["--task", "arithmetic+recall+hops", "--options", "recall.longest=10"]
LAST = ["arithmetic.T2", "recall.L10", "hops.H6"]
MINUTES = 10


def measure(seed: int, folder: Path) -> dict[str, Any]:
    """Train one seed, verify it and remove units."""
    run = folder / f"mixture-{seed}"
    if not (run / "result.json").exists():
        fields = ["--seed", str(seed), "--minutes", str(MINUTES), "--out", str(run)]
        command = [sys.executable, "-m", "modelnative", "train", *TASK, *fields]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    result = json.loads((run / "result.json").read_text())
    counts = result["evaluation"]["counts"]
    agent = mn.load(run)
    start = time.process_time()
    units = sharing(agent.policy, agent.task, LAST, 500)
    return {
        "seed": seed,
        "seconds": result["seconds"],
        "updates": result["updates"],
        "steps": result["steps"],
        "line": result["evaluation"]["line"],
        "heldout": {count["stage"]: count["rate"] for count in counts if count["split"] == "heldout"},
        "sampled": {
            count["stage"]: count["rate"] for count in result["sampled"]["counts"] if count["split"] == "heldout"
        },
        "sharing": [part.as_dict() for part in units],
        "inspect_cpu_seconds": time.process_time() - start,
        "machine": machine(),
    }


def table(lines: list[dict[str, Any]]) -> str:
    """Success of every stage, and success of each last stage without the units that another one needs."""
    newest = sorted({line["seed"]: line for line in lines}.values(), key=lambda line: line["seed"])
    rows = [
        "| seed | seconds | updates | lowest held-out success, greedy (sampled) | problems right |",
        "|---|---|---|---|---|",
    ]
    for line in newest:
        lowest = [min(line[kind].values()) for kind in ("heldout", "sampled")]
        right = line["line"].rpartition("(")[2].partition(" ")[0]
        shown = f"{floor(lowest[0])} ({floor(lowest[1])})"
        rows.append(f"| {line['seed']} | {line['seconds']:.0f} | {line['updates']} | {shown} | {right} |")
    seconds = [line["seconds"] for line in newest]
    rows += ["", f"Median {statistics.median(seconds):.0f} s ({min(seconds):.0f}–{max(seconds):.0f})", ""]
    rows += ["| without the units that this stage needs | units | " + " | ".join(LAST) + " |", "|---|---|---|---|---|"]
    for i, stage in enumerate(LAST):
        parts = [line["sharing"][i] for line in newest]
        cells = []
        for other in LAST:
            left = [part["without"][other] for part in parts]
            own, random = ([cell[kind]["rate"] for cell in left] for kind in ("success", "random"))
            shared = sum(cell["shared"] for cell in left)
            medians = f"{statistics.median(own):.3f} ({statistics.median(random):.3f})"
            cells.append(f"{medians}, shared by {shared} of {len(left)}")
        counts = sorted(part["count"] for part in parts)
        rows.append(f"| {stage} | {counts[0]}–{counts[-1]} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to N - 1 (default 10)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept (default runs)")
    parser.add_argument("--table", action="store_true", help="print the tables of all results so far, measure nothing")
    arguments = parser.parse_args()
    for seed in range(0 if arguments.table else arguments.seeds):
        line = measure(seed, arguments.runs)
        with open(RESULTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(seed, f"{line['seconds']:.0f} s", line["line"], flush=True)
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
