"""Records what rliable computes on made-up scores, into rliable.json. Run it where rliable is installed."""

import json
from pathlib import Path

import numpy as np
import rliable
from rliable import library, metrics

RESAMPLES = 20_000
THRESHOLDS = [step / 20 for step in range(20)]


def scores(name: str, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two groups, float [runs, tasks] each."""
    if name == "one task":
        return generator.beta(8, 2, (10, 1)), generator.beta(6, 3, (10, 1))
    if name == "three tasks":
        return generator.beta(5, 2, (10, 3)), generator.beta(5, 3, (8, 3))
    if name == "with ties":
        return generator.integers(0, 5, (12, 2)) / 4, generator.integers(0, 5, (12, 2)) / 4
    return generator.beta(2, 2, (5, 6)), generator.beta(2, 3, (5, 6))


def record(name: str, seed: int) -> dict[str, object]:
    x, y = scores(name, np.random.default_rng(seed))
    iqm, interval = library.get_interval_estimates(
        {"x": x}, lambda s: np.array([metrics.aggregate_iqm(s)]), reps=RESAMPLES, random_state=np.random.RandomState(0)
    )
    better, better_interval = library.get_interval_estimates(
        {"x,y": (x, y)}, metrics.probability_of_improvement, reps=RESAMPLES, random_state=np.random.RandomState(0)
    )
    profile, _ = library.create_performance_profile({"x": x}, THRESHOLDS, reps=10)
    return {
        "name": name,
        "x": x.T.tolist(),
        "y": y.T.tolist(),
        "iqm": float(iqm["x"][0]),
        "iqm_interval": interval["x"][:, 0].tolist(),
        "probability": float(better["x,y"]),
        "probability_interval": np.ravel(better_interval["x,y"]).tolist(),
        "thresholds": THRESHOLDS,
        "profile": np.asarray(profile["x"]).tolist(),
    }


if __name__ == "__main__":
    names = ("one task", "three tasks", "with ties", "few runs")
    cases = [record(name, seed) for seed, name in enumerate(names)]
    content = {"rliable": getattr(rliable, "__version__", "1.x"), "resamples": RESAMPLES, "cases": cases}
    Path(__file__).with_name("rliable.json").write_text(json.dumps(content, indent=1) + "\n")
