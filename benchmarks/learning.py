"""Does every recipe learn, how fast, and on how many problems? Each run is a process of its own, one after another.

    python benchmarks/learning.py                     # every recipe; hours on two cores
    python benchmarks/learning.py recipes --seeds 10  # every algorithm and every core, with hints
    python benchmarks/learning.py default --seeds 10  # the default training alone
    python benchmarks/learning.py --table             # print the table of all results so far

Results are appended to benchmarks/learning.jsonl, a line a run. A run is not repeated if there is a line of it with
the commit that last changed the library: a measurement that was interrupted goes on. The table, which has the newest
commit of each recipe, is printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # trainings start there, so that they find the task of an example
RESULTS = Path(__file__).with_suffix(".jsonl")
STEADY = ["--loss.hint-weight", "0.2", "--optimizer.learning-rate", "0.005"]
RECIPES: dict[str, list[str]] = {
    "default": [],
    "discover": ["--curriculum", "discover"],
    "a2c": ["--algorithm", "a2c"],
    "grpo": ["--algorithm", "grpo"],
    "rloo": ["--algorithm", "rloo"],
    "reinforce": ["--algorithm", "reinforce"],
    "transformer": ["--core", "transformer"],
    "transformer, grpo": ["--core", "transformer", "--algorithm", "grpo"],
    "mingru": ["--core", "mingru"],
    "mingru, grpo": ["--core", "mingru", "--algorithm", "grpo"],
    "reader": ["--policy.reader", "gru"],
    "reader, grpo": ["--policy.reader", "gru", "--algorithm", "grpo", *STEADY],
    "open-loop": ["--options", "feedback=none"],
    "no-copy-head": ["--policy.no-copy-head"],
    "threshold, no hints": ["--curriculum", "threshold", "--minutes", "10", "--updates", "1000000"],
    "learnability, no hints": ["--curriculum", "learnability", "--minutes", "10", "--updates", "1000000"],
}
# Every algorithm on the default core, and every core with two algorithms: what `recipes` stands for.
GROUP = ("default", "a2c", "grpo", "rloo", "reinforce", "transformer", "transformer, grpo", "mingru", "mingru, grpo")
GROUP += ("reader", "reader, grpo")


def commit() -> str:
    """The last commit that changed the library; empty outside of a repository, or where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words, "--", "src"], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    try:
        return "" if git("status", "--porcelain") else git("log", "-1", "--format=%h")
    except OSError:
        return ""


def newest(lines: list[dict], recipe: str) -> list[dict]:
    """The runs of a recipe that have the commit of its last one."""
    runs = [line for line in lines if line["recipe"] == recipe]
    return [run for run in runs if run.get("commit", "") == runs[-1].get("commit", "")]


def processor() -> str:
    """The processor's name, where the system reports it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor()


def processor_seconds() -> float:
    """What the processes that have ended and were waited for have used of the processor; 0 on Windows."""
    times = os.times()
    return times.children_user + times.children_system


def measure(recipe: str, flags: list[str], seed: int, changed: tuple[str, ...] = ()) -> dict[str, object]:
    """Train with some flags on the command line; also evaluate with `changed` options of the task."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [
            sys.executable,
            "-m",
            "modelnative",
            "train",
            "--seed",
            str(seed),
            "--out",
            str(run),
            *flags,
        ]
        before = processor_seconds()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        spent = processor_seconds() - before
        if not (run / "result.json").exists():
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        result = json.loads((run / "result.json").read_text())
        threads = json.loads((run / "config.json").read_text())["threads"]
        evaluations = {kind: result[kind] for kind in ("evaluation", "sampled")}
        if changed:
            again = [sys.executable, "-m", "modelnative", "evaluate", str(run), "--json", "--options", *changed]
            evaluations[" ".join(changed)] = json.loads(subprocess.run(again, capture_output=True, check=True).stdout)
    rates: dict[str, dict[str, float]] = {}
    for kind, evaluation in evaluations.items():
        for count in evaluation["counts"]:
            rates.setdefault(f"{kind} {count['split']}", {})[count["stage"]] = count["rate"]
    return {
        "recipe": recipe,
        "seed": seed,
        "solved": result["evaluation"]["perfect"],
        "line": result["evaluation"]["line"],
        **{name: result[name] for name in ("seconds", "updates", "episodes", "steps")},
        "processor_seconds": round(spent, 1),  # of the whole process, whatever else the machine does
        "rates": rates,
        "machine": {**result["machine"], "processor": processor(), "cores": os.cpu_count(), "threads": threads},
    }


def table(lines: list[dict]) -> str:
    """All results as Markdown: medians with their range."""
    rows = [
        "| recipe | seeds | all 111,000 right | seconds, median (range) | updates | episodes | steps |"
        " worst greedy T0 / T1 / T2 | worst sampled |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for recipe in RECIPES:
        runs = newest(lines, recipe)
        if not runs:
            continue

        def median_range(name: str, digits: int = 0, runs: list[dict] = runs) -> str:
            values = [run[name] for run in runs]
            return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"

        def worst(kind: str, stage: str, runs: list[dict] = runs) -> float:
            return min(rates[stage] for run in runs for name, rates in run["rates"].items() if name.startswith(kind))

        greedy = " / ".join(f"{int(worst('evaluation', s) * 1e4) / 1e4:.4f}" for s in ("T0", "T1", "T2"))
        sampled = min(worst("sampled", s) for s in ("T0", "T1", "T2"))
        solved = sum(run["solved"] for run in runs)
        rows.append(
            f"| {recipe} | {len(runs)} | {solved} of {len(runs)} | {median_range('seconds', 1)} |"
            f" {median_range('updates')} | {median_range('episodes')} | {median_range('steps')} |"
            f" {greedy} | {sampled:.4f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="recipe", help=f"recipes (most of them), {', '.join(RECIPES)}")
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to N - 1 (default 10)")
    parser.add_argument("--table", action="store_true", help="print the table of all results so far, measure nothing")
    arguments = parser.parse_args()
    wanted = [name for word in arguments.recipes for name in (GROUP if word == "recipes" else (word,))]
    unknown = set(wanted) - set(RECIPES)
    if unknown:
        parser.error(f"unknown recipe {sorted(unknown)[0]!r}; choose from {', '.join(RECIPES)}")
    if not arguments.table:
        version = commit()
        done = {(line["recipe"], line["seed"]) for line in results() if version and line.get("commit") == version}
        for recipe in wanted or RECIPES:
            for seed in range(arguments.seeds):
                if (recipe, seed) in done:
                    continue
                line = {**measure(recipe, RECIPES[recipe], seed), "commit": version}
                with open(RESULTS, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(recipe, seed, line["line"], f"{line['seconds']:.1f} s, {line['updates']} updates", flush=True)
    print(table(results()))


def results() -> list[dict]:
    """All results so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


if __name__ == "__main__":
    main()
