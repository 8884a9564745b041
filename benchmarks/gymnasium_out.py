"""Stable-Baselines3 (contrib) trains on our tasks through `SB3VecEnv`, from this folder's parent.

    pip install 'modelnative[sb3]'
    python benchmarks/gymnasium_out.py                  # both, two seeds each; a quarter of an hour on two cores
    python benchmarks/gymnasium_out.py RecurrentPPO --seeds 5

`RecurrentPPO` learns `recall` L1 with two symbols; `MaskablePPO`, which has no memory, learns `convert` of the
example's own tools from the last six observations. Results are appended to benchmarks/gymnasium_out.jsonl, a line a
run: greedy success on 500 held-out problems after every part of the training, which ends at 0.9, and the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).with_suffix(".jsonl")
EPISODES, PARTS, ENOUGH = 500, 20, 0.9
CASES: dict[str, dict[str, Any]] = {
    "RecurrentPPO": {
        "task": "recall",
        "options": {"symbols": 2},
        "stages": ["L1"],
        "steps": 300_000,
        "settings": {"n_steps": 32, "batch_size": 512, "n_epochs": 4, "learning_rate": 1e-3, "ent_coef": 0.01},
    },
    "MaskablePPO": {
        "task": "examples.own_tools:task",
        "options": {},
        "stages": ["convert"],
        "stack": 6,
        "steps": 400_000,
        "settings": {"n_steps": 128, "batch_size": 1024, "n_epochs": 4, "learning_rate": 5e-4, "ent_coef": 0.02},
    },
}


def environment(case: dict[str, Any], split: str, seed: int) -> Any:
    """64 episodes; stacked if the policy has no memory."""
    from stable_baselines3.common.vec_env import VecFrameStack

    from modelnative.bridges.sb3 import SB3VecEnv

    made = SB3VecEnv(case["task"], 64, stages=case["stages"], split=split, seed=seed, **case["options"])
    return VecFrameStack(made, case["stack"]) if case.get("stack") else made


def success(model: Any, envs: Any) -> float:
    """The greedy success rate on held-out problems."""
    masked = type(model).__name__ == "MaskablePPO"
    observation, verdicts, state, start = envs.reset(), [], None, np.ones(envs.num_envs, dtype=bool)
    while len(verdicts) < EPISODES:
        more = {"action_masks": np.stack(envs.env_method("action_masks"))} if masked else {}
        action, state = model.predict(observation, state=state, episode_start=start, deterministic=True, **more)
        observation, _, start, infos = envs.step(action)
        verdicts += [infos[i]["success"] for i in start.nonzero()[0]]
    return float(np.mean(verdicts))


def measure(name: str, seed: int) -> dict[str, Any]:
    """One training, which ends early once it is good."""
    import sb3_contrib
    import torch

    torch.set_num_threads(1)
    case, load = CASES[name], os.getloadavg()[0]
    policy = "MlpPolicy" if name == "MaskablePPO" else "MlpLstmPolicy"
    kind = getattr(sb3_contrib, name)
    model = kind(policy, environment(case, "train", seed), gamma=1.0, seed=seed, device="cpu", **case["settings"])
    tested, curve = environment(case, "heldout", 10_000 + seed), {}
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(PARTS):
        model.learn(case["steps"] // PARTS, reset_num_timesteps=False)
        curve[model.num_timesteps] = success(model, tested)
        print(name, seed, model.num_timesteps, curve[model.num_timesteps], file=sys.stderr, flush=True)
        if curve[model.num_timesteps] >= ENOUGH:
            break
    times = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - processor}
    versions = {package: version(package) for package in ("stable_baselines3", "sb3_contrib", "gymnasium", "torch")}
    about = {"load": load, "cores": os.cpu_count(), "versions": versions}
    return {"algorithm": name, "seed": seed, **case, "success": curve, **times, **about}


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--seeds", type=int, default=2)
    found = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.path.append(".")  # the example's tools
    for name in found.names or CASES:
        for seed in range(found.seeds):
            line = json.dumps(measure(name, seed))
            print(line, flush=True)
            with RESULTS.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
