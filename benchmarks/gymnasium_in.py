"""Gymnasium environments trained by `modelnative train`, beside Stable-Baselines3 on the same machine.

SB3 trains with PPO, and with contrib's RecurrentPPO where a task needs memory.

    pip install 'modelnative[sb3]'  # and popgym
    python benchmarks/gymnasium_in.py                          # everything; an hour on two cores
    python benchmarks/gymnasium_in.py cartpole --seeds 3 4     # some
    python benchmarks/gymnasium_in.py --table                  # print the table of all results so far

Results are appended to benchmarks/gymnasium_in.jsonl, a line a run: the command, the seed, the mean return of 500
greedy episodes whose seeds were not trained on, seconds, processor seconds of the whole run, and the load. The
optimum of FrozenLake and Taxi is computed from their transition tables, with the time limit, and its policy plays the
same episodes. The settings for POPGym were chosen on seed 0, so use others there.
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
OURS = ("threshold", "horizon", "digits")  # options of the task, not of the environment
OPTIMA = {"CartPole-v1": "500"}  # those of POPGym are 1
EXPLORE = ["--loss.entropy-weight", "0.01"]
SCALED = ["--loss.reward-scale", "0.01", "--loss.epochs", "4", "--loss.minibatches", "8"]
LSTM = {"n_steps": 64, "batch_size": 256, "n_epochs": 8, "learning_rate": 1e-3, "ent_coef": 0.01}
# Flags of `modelnative train`, for each of its runs (the next starts with the weights of the one before); options of
# the environment; SB3's algorithm, its steps and settings. Those of CartPole are from SB3's RL Zoo, which has none for
# the others.
TASKS: dict[str, tuple[list[list[str]], dict, tuple[str, int, dict]]] = {
    "CartPole-v1": (
        [["--updates", "20"]],
        {},
        (
            "PPO",
            100_000,
            {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "learning_rate": 1e-3},
        ),
    ),
    "FrozenLake-v1, not slippery": (
        [["--updates", "60"]],
        {"is_slippery": False},
        ("PPO", 50_000, {"n_steps": 256, "batch_size": 256, "learning_rate": 1e-3, "ent_coef": 0.01}),
    ),
    "FrozenLake-v1": (
        [["--updates", "60", "--episodes", "512", "--loss.epochs", "2", "--loss.minibatches", "8", *EXPLORE]],
        {},
        ("PPO", 300_000, {"n_steps": 256, "batch_size": 256, "learning_rate": 1e-3, "ent_coef": 0.01}),
    ),
    "Taxi-v4": (
        [
            ["--updates", "30", "--episodes", "64", *SCALED, "--loss.entropy-weight", "0.2"],
            ["--updates", "150", "--episodes", "256", *SCALED, *EXPLORE, "--target-success", "0.998"],
        ],
        {"threshold": 3},
        ("PPO", 500_000, {"n_steps": 256, "batch_size": 256, "learning_rate": 1e-3, "ent_coef": 0.05}),
    ),
    "popgym:popgym-RepeatFirstEasy-v0": (
        [["--updates", "250", "--loss.gamma", "0.5", *EXPLORE]],
        {"threshold": 0.95, "horizon": 60},
        ("RecurrentPPO", 250_000, {**LSTM, "gamma": 0.5}),
    ),
    "popgym:popgym-RepeatPreviousEasy-v0": (
        [["--updates", "250", "--loss.gamma", "0.5", *EXPLORE]],
        {"threshold": 0.95, "horizon": 60},
        ("RecurrentPPO", 250_000, {**LSTM, "gamma": 0.5}),
    ),
    "popgym:popgym-PositionOnlyCartPoleEasy-v0": (
        [["--updates", "80", "--loss.entropy-weight", "0.003"]],
        {"threshold": 0.95, "horizon": 200, "digits": 3},
        ("RecurrentPPO", 300_000, LSTM),
    ),
}


def seeds(task: Any) -> list[int]:
    """Of the held-out episodes that an evaluation plays."""
    draw = torch.Generator().manual_seed(0)
    return task.sample(torch.zeros(EPISODES, dtype=torch.int64), draw, "heldout").key.tolist()


def optimum(name: str, options: dict) -> tuple[float, float] | None:
    """The greatest expected return of the evaluation's episodes, and what the policy that has it gets in them.

    By dynamic programming over the transition table; None for an environment without one.
    """
    task = mn.make(f"gymnasium:{name}", **options)
    environment = gymnasium.make(name, **{key: value for key, value in options.items() if key not in OURS})
    table = getattr(environment.unwrapped, "P", None)
    if table is None:
        return None
    value, best = np.zeros(len(table)), []
    for _ in range(task.limit):
        ahead = np.zeros((len(table), len(table[0])))
        for state, action in np.ndindex(ahead.shape):
            for probability, after, reward, over in table[state][action]:
                ahead[state, action] += probability * (reward + (0 if over else value[after]))
        value = ahead.max(1)
        best.append(ahead.argmax(1))  # with so many steps left
    expected, total = 0.0, 0.0
    for seed in seeds(task):
        state, over, left = environment.reset(seed=seed)[0], False, task.limit
        expected += value[state]
        while not over:
            left -= 1
            state, reward, terminated, truncated, _ = environment.step(int(best[left][state]))
            total, over = total + float(reward), terminated or truncated
    return expected / EPISODES, total / EPISODES


def commands(name: str, seed: int) -> list[list[str]]:
    """Of our trainings; their run folders are RUNS/0, RUNS/1, ..."""
    phases, options, _ = TASKS[name]
    given = [f"{key}={json.dumps(value)}" for key, value in options.items()]
    found = []
    for number, flags in enumerate(phases):
        command = ["modelnative", "train", "--task", f"gymnasium:{name.partition(',')[0]}", *flags, "--seed", str(seed)]
        command += ["--options", *given] if given else []
        found.append(command + (["--init", f"RUNS/{number - 1}"] if number else []))
    return found


def described(name: str, library: str, seed: int) -> str:
    """What is run, as the results say it."""
    if library == "modelnative":
        return "; ".join(map(" ".join, commands(name, seed)))
    algorithm, steps, settings = TASKS[name][2]
    return f"SB3 {algorithm}, {steps:,} steps, {settings}"


def ours(name: str, seed: int) -> dict:
    """Trainings of ours, by the command line."""
    steps = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, command in enumerate(commands(name, seed)):
            words = [sys.executable, "-m", *(word.replace("RUNS", folder) for word in command)]
            subprocess.run([*words, "--out", f"{folder}/{number}"], check=True, stdout=subprocess.DEVNULL)
            result = json.loads(Path(folder, str(number), "result.json").read_text())
            steps += result["steps"]
    held = next(count for count in result["evaluation"]["counts"] if count["split"] == "heldout")
    return {"return": held["mean_return"], "success": held["rate"], "episodes": held["problems"], "steps": steps}


def theirs(name: str, seed: int) -> dict:
    """A training by SB3, evaluated on the same seeds."""
    import sb3_contrib
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env

    options, (algorithm, steps, settings) = TASKS[name][1:]
    environment = name.partition(",")[0]
    chosen = {key: value for key, value in options.items() if key not in OURS}
    task = mn.make(f"gymnasium:{environment}", **options)  # which also registers the environment
    environment = environment.rpartition(":")[2]
    torch.set_num_threads(1)
    kind = getattr(stable_baselines3, algorithm, None) or getattr(sb3_contrib, algorithm)
    policy = "MlpPolicy" if algorithm == "PPO" else "MlpLstmPolicy"
    made = make_vec_env(environment, 8, seed=seed, env_kwargs=chosen)
    model = kind(policy, made, seed=seed, device="cpu", **settings).learn(steps)
    returns = played(model, [gymnasium.make(environment, **chosen) for _ in range(EPISODES)], seeds(task))
    return {
        "return": float(np.mean(returns)),
        "success": float(np.mean(returns >= task.threshold - 1e-9)),
        "episodes": EPISODES,
        "steps": model.num_timesteps,
    }


def played(model: Any, environments: list[gymnasium.Env], chosen: list[int]) -> np.ndarray:
    """The returns of greedy episodes, all played at once."""
    seen = np.stack([each.reset(seed=seed)[0] for each, seed in zip(environments, chosen, strict=True)])
    returns, over = np.zeros(len(seen)), np.zeros(len(seen), dtype=bool)
    state, start = None, np.ones(len(seen), dtype=bool)
    while not over.all():
        actions, state = model.predict(seen, state=state, episode_start=start, deterministic=True)
        start[:] = False
        for i in (~over).nonzero()[0]:
            seen[i], reward, terminated, truncated, _ = environments[i].step(int(actions[i]))
            returns[i] += float(reward)
            over[i] = terminated or truncated
    return returns


def spent() -> float:
    """Processor seconds of the processes that this one has started."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def measure(name: str, library: str, seed: int) -> dict:
    """One run, in processes of its own."""
    load = os.getloadavg()[0]
    start, before = time.perf_counter(), spent()
    if library == "modelnative":
        found = ours(name, seed)
    else:
        words = [sys.executable, __file__, "--one", name, str(seed)]
        found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    seconds, processor = time.perf_counter() - start, spent() - before
    about = {"python": platform.python_version(), "gymnasium": gymnasium.__version__, "cores": os.cpu_count()}
    times = {"seconds": seconds, "processor_seconds": processor, "load": load}
    what = {"task": name, "library": library, "seed": seed, "command": described(name, library, seed)}
    return {**what, **found, **times, **about}


def table(lines: list[dict]) -> str:
    """All results of these settings as Markdown, every seed shown.

    Of an optimum, the best policy's return in the same episodes, and then the expected one.
    """
    rows = [
        "| environment | optimum | library | seeds | return, each seed | success | steps | processor seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (_, options, (algorithm, _, _)) in TASKS.items():
        best = None if name.startswith("popgym") else optimum(name.partition(",")[0], options)
        for library in ("modelnative", f"SB3 {algorithm}"):
            runs = [line for line in lines if (line["task"], line["library"]) == (name, library)]
            runs = [run for run in runs if run["command"] == described(name, library, run["seed"])]
            if runs:
                runs.sort(key=lambda run: run["seed"])
                seeded = " ".join(str(run["seed"]) for run in runs)
                returns, success = (" ".join(f"{run[key]:.4g}" for run in runs) for key in ("return", "success"))
                times = [
                    f"{statistics.median(run[key] for run in runs):,.0f}" for key in ("steps", "processor_seconds")
                ]
                shown = OPTIMA.get(name, "1") if best is None else f"{best[1]:.3f} ({best[0]:.3f})"
                shown = "1" if best and best[0] == best[1] == 1 else shown
                rows.append(
                    f"| {name} | {shown} | {library} | {seeded} | {returns} | {success} | {' | '.join(times)} |"
                )
    return "\n".join(rows)


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--library", choices=("modelnative", "SB3"), help="only this one")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.one:
        name, seed = found.one
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(json.dumps(theirs(name, int(seed))))
        return
    for name in TASKS if not found.table else ():
        if not found.names or any(part.lower() in name.lower() for part in found.names):
            for seed in found.seeds:
                both = ("modelnative", f"SB3 {TASKS[name][2][0]}")
                for library in (each for each in both if each.startswith(found.library or "")):
                    line = measure(name, library, seed)
                    print(json.dumps(line), flush=True)
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(line) + "\n")
    print(table([json.loads(line) for line in RESULTS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
