"""Datasets of reasoning-gym trained by `modelnative train`, beside SB3 contrib's RecurrentPPO on the same machine.

    pip install 'modelnative[reasoning-gym,sb3]'
    python benchmarks/reasoning_gym_in.py                       # everything; half an hour on two cores
    python benchmarks/reasoning_gym_in.py spell --seeds 4 5     # some
    python benchmarks/reasoning_gym_in.py --table               # print the table of all results so far

Results are appended to benchmarks/reasoning_gym_in.jsonl, a line a run: the command, the seed, greedy success on all
held-out questions, the success of the best constant answer on them, steps, and processor seconds of the whole run;
for `chain_sum` also the success on held-out questions whose sum was not trained on in the other order (3 + 4, 4 + 3).
The settings were chosen on seeds 0 and 1, which are not in the default seeds. RecurrentPPO trains from the same rewards
without hints, which it does not know.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import modelnative as mn
from modelnative.tasks.contract.task import Split

RESULTS = Path(__file__).with_suffix(".jsonl")
TASK = "modelnative.bridges.reasoning_gym_task:ReasoningGym"
LIBRARIES = ("modelnative", "SB3 RecurrentPPO")
READ = ["--policy.reader", "gru"]
IMITATED = ["--loss.hint-weight", "0.2"]
# By dataset: flags of `modelnative train`, options of the task, steps of SB3.
DATASETS: dict[str, tuple[list[str], dict[str, Any], int]] = {
    "chain_sum": (
        ["--updates", "4000", "--policy.width", "128", *IMITATED],
        {"size": 50_000, "min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2},
        500_000,
    ),
    "spell_backward": (["--updates", "400", *READ], {"size": 20_000, "min_word_len": 3, "max_word_len": 6}, 500_000),
    "spiral_matrix": (["--updates", "600", *IMITATED], {"size": 20_000, "min_n": 2, "max_n": 3}, 500_000),
}
SETTINGS = {"n_steps": 32, "batch_size": 512, "n_epochs": 4, "learning_rate": 1e-3, "ent_coef": 0.01, "gamma": 1.0}


def described(dataset: str, library: str, seed: int) -> str:
    """What is run, as the results say it."""
    flags, options, steps = DATASETS[dataset]
    if library != "modelnative":
        return f"{library}, {steps:,} steps, {SETTINGS}"
    given = [f"{key}={json.dumps(value)}" for key, value in {"dataset": dataset, **options}.items()]
    return " ".join(["modelnative train --task", TASK, *flags, "--seed", str(seed), "--options", *given])


def ours(dataset: str, seed: int) -> dict[str, Any]:
    """A training by the command line."""
    command = described(dataset, "modelnative", seed).split()
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", *command, "--out", f"{folder}/run"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        result = json.loads(Path(folder, "run", "result.json").read_text())
        new = unrelated(Path(folder)) if dataset == "chain_sum" else {}
    counts = {count["split"]: count for count in result["evaluation"]["counts"]}
    rates = {split: count["rate"] for split, count in counts.items()}
    return {**rates, "heldout_questions": counts["heldout"]["problems"], **new, "steps": result["steps"]}


def unrelated(folder: Path) -> dict[str, Any]:
    """The success on held-out questions that are no sum which was trained on in the other order."""
    trained, tested = (played(folder, split) for split in ("train", "heldout"))
    known = {line["problem"] for line in trained}
    new = [line["success"] for line in tested if " + ".join(reversed(line["problem"].split(" + "))) not in known]
    return {"unrelated": statistics.mean(new), "unrelated_questions": len(new)}


def played(folder: Path, split: Split) -> list[dict[str, Any]]:
    """All greedy episodes of a run on one side of the split."""
    mn.evaluate(folder / "run", split=split, episodes_file=folder / split)
    return [json.loads(line) for line in (folder / split).read_text().splitlines()]


def theirs(dataset: str, seed: int) -> dict[str, Any]:
    """A training by contrib's RecurrentPPO, evaluated on all held-out questions."""
    from sb3_contrib import RecurrentPPO

    from modelnative.bridges.sb3 import SB3VecEnv

    options, steps = DATASETS[dataset][1:]
    torch.set_num_threads(1)
    task = mn.make(TASK, dataset=dataset, **options)
    environment = SB3VecEnv(task, 64, seed=seed)
    model = RecurrentPPO("MlpLstmPolicy", environment, seed=seed, device="cpu", **SETTINGS).learn(steps)
    tested, verdicts = SB3VecEnv(task, 256, split="heldout", seed=10_000), list[bool]()
    observation, state, start = tested.reset(), None, np.ones(256, dtype=bool)
    while len(verdicts) < task.count(0, "heldout"):
        action, state = model.predict(observation, state=state, episode_start=start, deterministic=True)
        observation, _, start, infos = tested.step(action)
        verdicts += [bool(infos[i]["success"]) for i in start.nonzero()[0]]
    return {"heldout": float(np.mean(verdicts)), "steps": model.num_timesteps}


@functools.cache
def constant(dataset: str) -> float:
    """The success on held-out questions of the answer that is most frequent among those trained on."""
    task = mn.make(TASK, dataset=dataset, **DATASETS[dataset][1])
    answers = {
        split: [tuple(row) for part in task.enumerate(0, split) for row in part.answer.tolist()]
        for split in ("train", "heldout")
    }
    best = Counter(answers["train"]).most_common(1)[0][0]
    return answers["heldout"].count(best) / len(answers["heldout"])


def measure(dataset: str, library: str, seed: int) -> dict[str, Any]:
    """One run, in processes of its own."""
    load, start, before = os.getloadavg()[0], time.perf_counter(), os.times()
    if library == "modelnative":
        found = ours(dataset, seed)
    else:
        words = [sys.executable, __file__, "--one", dataset, str(seed)]
        found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    seconds, after = time.perf_counter() - start, os.times()
    processor = sum(after[2:4]) - sum(before[2:4])  # of child processes
    versions = {package: version(package) for package in ("reasoning-gym", "torch")}
    about = {"python": platform.python_version(), "versions": versions, "cores": os.cpu_count()}
    times = {"seconds": seconds, "processor_seconds": processor, "load": load}
    what = {"dataset": dataset, "library": library, "seed": seed, "command": described(dataset, library, seed)}
    return {**what, **found, "constant": constant(dataset), **times, **about}


def table(lines: list[dict[str, Any]]) -> str:
    """All results of these settings as Markdown, every seed shown."""
    rows = [
        "| dataset | best constant | library | seeds | held-out success, each seed | steps | processor seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for dataset in DATASETS:
        for library in LIBRARIES:
            runs = [line for line in lines if (line["dataset"], line["library"]) == (dataset, library)]
            runs = [run for run in runs if run["command"] == described(dataset, library, run["seed"])]
            if runs:
                runs.sort(key=lambda run: run["seed"])
                seeded = " ".join(str(run["seed"]) for run in runs)
                success = " ".join(f"{run['heldout']:.3f}" for run in runs)
                steps, seconds = (statistics.median(run[key] for run in runs) for key in ("steps", "processor_seconds"))
                floor = f"{runs[0]['constant']:.3f}"
                rows.append(
                    f"| {dataset} | {floor} | {library} | {seeded} | {success} | {steps:,.0f} | {seconds:,.0f} |"
                )
    return "\n".join(rows)


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--library", choices=LIBRARIES, help="only this one")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.one:
        print(json.dumps(theirs(found.one[0], int(found.one[1]))))
        return
    for dataset in DATASETS if not found.table else ():
        if not found.names or any(part in dataset for part in found.names):
            for seed in found.seeds:
                for library in [found.library] if found.library else LIBRARIES:
                    line = measure(dataset, library, seed)
                    print(json.dumps(line), flush=True)
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
