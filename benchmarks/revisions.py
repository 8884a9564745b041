"""Two revisions of the library side by side: the default recipe on several seeds, one training of each after the other.

    git worktree add ../before REVISION
    python benchmarks/revisions.py ../before/src src --seeds 10

The first is before, the second after. Both run with the Python that runs this, one process a training, seed by seed
and in turns (A B, B A, …), so that what else the machine does falls on both alike. It prints Markdown: every seed, and
the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def training(source: Path, seed: int, flags: list[str]) -> tuple[float, bool]:
    """Seconds of one training with the library in `source`, and whether every problem was verified to be solved."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "modelnative", "train", "--seed", str(seed), "--out", str(run), *flags]
        subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(source.resolve())}, capture_output=True, check=True
        )
        result = json.loads((run / "result.json").read_text())
        return float(result["seconds"]), bool(result["evaluation"]["perfect"])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("flags", nargs="*", help="of `modelnative train`, after --")
    options = parser.parse_args()
    sources = [options.before, options.after]
    for source in sources:
        training(source, 0, options.flags)  # compiles the kernels; not counted
    print("| seed | before, s | solved | after, s | solved |\n|---|---|---|---|---|")
    seconds: tuple[list[float], list[float]] = ([], [])
    for seed in range(options.seeds):
        order = [0, 1] if seed % 2 == 0 else [1, 0]
        results = {which: training(sources[which], seed, options.flags) for which in order}
        for which in (0, 1):
            seconds[which].append(results[which][0])
        cells = [f"{results[which][0]:.1f} | {'yes' if results[which][1] else 'no'}" for which in (0, 1)]
        print(f"| {seed} | {' | '.join(cells)} |", flush=True)
    before, after = (statistics.median(each) for each in seconds)
    print(f"\nMedians {before:.2f} and {after:.2f} s, after over before {after / before:.3f}")


if __name__ == "__main__":
    main()
