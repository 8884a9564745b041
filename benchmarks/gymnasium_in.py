"""Gymnasium environments trained by `modelnative train`, beside Stable-Baselines3's PPO on the same machine.

    pip install 'modelnative[sb3]'  # and popgym
    python benchmarks/gymnasium_in.py                          # everything; an hour on two cores
    python benchmarks/gymnasium_in.py cartpole --seeds 3       # some
    python benchmarks/gymnasium_in.py --table                  # print the table of all results so far

Results are appended to benchmarks/gymnasium_in.jsonl, a line a run: the command, the seed, the mean return of 500
greedy episodes whose seeds were not trained on, seconds, processor seconds of the whole run, and the load. The
optimum of FrozenLake and Taxi is computed from their transition tables, with the time limit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

import modelnative as mn

RESULTS = Path(__file__).with_suffix(".jsonl")
EPISODES = 500
OURS = ("threshold", "horizon")  # options of the task, not of the environment
OPTIMA = {"CartPole-v1": "500"}  # those of POPGym are 1
EXPLORE = ["--loss.entropy-weight", "0.01"]
SCALED = ["--loss.reward-scale", "0.01", "--loss.epochs", "4", "--loss.minibatches", "8"]
# Flags of `modelnative train`, for each of its runs (the next starts with the weights of the one before); options of
# the environment; steps and settings of SB3's PPO. CartPole's are those of its RL Zoo, which has none for the others.
# The tasks of POPGym need memory, which SB3's PPO has not.
TASKS: dict[str, tuple[list[list[str]], dict, tuple[int, dict] | None]] = {
    "CartPole-v1": (
        [["--updates", "20"]],
        {},
        (
            100_000,
            {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "learning_rate": 1e-3},
        ),
    ),
    "FrozenLake-v1, not slippery": (
        [["--updates", "60"]],
        {"is_slippery": False},
        (50_000, {"n_steps": 256, "batch_size": 256, "learning_rate": 1e-3, "ent_coef": 0.01}),
    ),
    "FrozenLake-v1": (
        [["--updates", "60", "--episodes", "512", "--loss.epochs", "2", "--loss.minibatches", "8", *EXPLORE]],
        {},
        (300_000, {"n_steps": 256, "batch_size": 256, "learning_rate": 1e-3, "ent_coef": 0.01}),
    ),
    "Taxi-v4": (
        [
            ["--updates", "30", "--episodes", "64", *SCALED, "--loss.entropy-weight", "0.2"],
            ["--updates", "150", "--episodes", "256", *SCALED, *EXPLORE, "--target-success", "0.998"],
        ],
        {"threshold": 3},
        (500_000, {"n_steps": 256, "batch_size": 256, "learning_rate": 1e-3, "ent_coef": 0.05}),
    ),
    "popgym:popgym-RepeatFirstEasy-v0": ([["--updates", "60"]], {"threshold": 0.9, "horizon": 60}, None),
    "popgym:popgym-RepeatPreviousEasy-v0": ([["--updates", "150"]], {"threshold": 0.9, "horizon": 60}, None),
    "popgym:popgym-AutoencodeEasy-v0": ([["--updates", "300"]], {"threshold": 0.9, "horizon": 110}, None),
}


def seeds(task: Any) -> list[int]:
    """Of the held-out episodes that an evaluation plays."""
    draw = torch.Generator().manual_seed(0)
    return task.sample(torch.zeros(EPISODES, dtype=torch.int64), draw, "heldout").key.tolist()


def optimum(name: str, options: dict) -> float | None:
    """The greatest expected return of the evaluation's episodes, by dynamic programming over the transition table."""
    task = mn.make(f"gymnasium:{name}", **options)
    environment = gymnasium.make(name, **{key: value for key, value in options.items() if key not in OURS})
    table = getattr(environment.unwrapped, "P", None)
    if table is None:
        return None
    value = np.zeros(len(table))
    for _ in range(task.limit):
        ahead = np.zeros((len(table), len(table[0])))
        for state, action in np.ndindex(ahead.shape):
            for probability, after, reward, over in table[state][action]:
                ahead[state, action] += probability * (reward + (0 if over else value[after]))
        value = ahead.max(1)
    return float(np.mean([value[environment.reset(seed=seed)[0]] for seed in seeds(task)]))


def ours(name: str, seed: int) -> dict:
    """Trainings of ours, by the command line."""
    phases, options, _ = TASKS[name]
    environment = name.partition(",")[0]
    given = [f"{key}={json.dumps(value)}" for key, value in options.items()]
    commands, steps = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for number, flags in enumerate(phases):
            command = ["train", "--task", f"gymnasium:{environment}", *flags, "--seed", str(seed)]
            command += ["--options", *given] if given else []
            command += ["--init", f"{folder}/{number - 1}"] if number else []
            words = [sys.executable, "-m", "modelnative", *command, "--out", f"{folder}/{number}"]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            result = json.loads(Path(folder, str(number), "result.json").read_text())
            steps += result["steps"]
            commands.append(" ".join(["modelnative", *command]).replace(folder, "RUNS"))
    held = next(count for count in result["evaluation"]["counts"] if count["split"] == "heldout")
    found = {"return": held["mean_return"], "success": held["rate"], "episodes": held["problems"], "steps": steps}
    return {"command": "; ".join(commands), **found}


def theirs(name: str, seed: int) -> dict:
    """A training by SB3's PPO, evaluated on the same seeds."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    options, (steps, settings) = TASKS[name][1:]
    environment = name.partition(",")[0]
    chosen = {key: value for key, value in options.items() if key not in OURS}
    torch.set_num_threads(1)
    model = PPO(
        "MlpPolicy", make_vec_env(environment, 8, seed=seed, env_kwargs=chosen), seed=seed, device="cpu", **settings
    )
    model.learn(steps)
    task = mn.make(f"gymnasium:{environment}", **options)
    played, returns = gymnasium.make(environment, **chosen), []
    for episode in seeds(task):
        observation, over, total = played.reset(seed=episode)[0], False, 0.0
        while not over:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = played.step(int(action))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return {
        "command": f"SB3 PPO, {steps:,} steps, {settings}",
        "return": float(np.mean(returns)),
        "success": float(np.mean(np.array(returns) >= task.threshold)),
        "episodes": EPISODES,
        "steps": model.num_timesteps,
    }


def spent() -> float:
    """Processor seconds of this process and its children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def measure(name: str, library: str, seed: int) -> dict:
    """One run, in a process of its own."""
    load = os.getloadavg()[0]
    words = [sys.executable, __file__, "--one", name, library, str(seed)]
    start, before = time.perf_counter(), spent()
    found = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    seconds, processor = time.perf_counter() - start, spent() - before
    about = {"python": platform.python_version(), "gymnasium": gymnasium.__version__, "cores": os.cpu_count()}
    times = {"seconds": seconds, "processor_seconds": processor, "load": load}
    return {"task": name, "library": library, "seed": seed, **json.loads(found), **times, **about}


def table(lines: list[dict]) -> str:
    """All results as Markdown, every seed shown."""
    rows = [
        "| environment | optimum | library | return of each seed | success | steps | seconds | processor seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (_, options, _) in TASKS.items():
        best = None if name.startswith("popgym") else optimum(name.partition(",")[0], options)
        for library in ("modelnative", "SB3 PPO"):
            runs = [line for line in lines if (line["task"], line["library"]) == (name, library)]
            if runs:
                returns, success = (" ".join(f"{run[key]:.4g}" for run in runs) for key in ("return", "success"))
                times = [
                    f"{statistics.median(run[key] for run in runs):,.0f}"
                    for key in ("steps", "seconds", "processor_seconds")
                ]
                shown = OPTIMA.get(name, "1") if best is None else f"{best:.3f}"
                rows.append(f"| {name} | {shown} | {library} | {returns} | {success} | {' | '.join(times)} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--library", choices=("modelnative", "SB3 PPO"), help="only this one")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.one:
        name, library, seed = found.one
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(json.dumps((ours if library == "modelnative" else theirs)(name, int(seed))))
        return
    for name in TASKS if not found.table else ():
        if not found.names or any(part.lower() in name.lower() for part in found.names):
            for seed in range(found.seeds):
                both = ["modelnative", *(["SB3 PPO"] if TASKS[name][2] else [])]
                for library in [found.library] if found.library else both:
                    line = measure(name, library, seed)
                    print(json.dumps(line), flush=True)
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
