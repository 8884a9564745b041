"""Ends a sweep (`os._exit`) before each of its steps on the disk in turn, resumes it, and compares tables.

All sweeps are forks of this process, so torch is imported only once. Usage: killed_sweep.py FOLDER fake|real, where
`fake` means trials that only write their result; real ones take longer, and only one step in five is tried. Prints how
often a sweep was killed.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeping import TINY, fingerprint, write_result

from modelnative.runs.run import Run
from modelnative.sweeps import options
from modelnative.sweeps.executors import LocalExecutor, Outcome
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.plan import Trial
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

SEEDS = 3
KILLED = 9


class FakeExecutor(LocalExecutor):
    """Its trials make their folder when they start, and write their result when they are asked for."""

    def start(self, trial: Trial) -> None:
        (self._sweep.path / "logs").mkdir(exist_ok=True)
        self._running[trial.name] = trial  # type: ignore[assignment]

    def poll(self, seconds: float) -> list[tuple[str, Outcome]]:
        name, trial = next(iter(self._running.items()))
        share = 1.0 if trial.config.seed else 0.5  # type: ignore[attr-defined]
        run = self._sweep.run(trial)  # type: ignore[arg-type]
        Run.create(run.path, run.config) if not run.path.exists() else None
        write_result(run, share)
        del self._running[name]
        return [(name, Outcome(0))]

    def close(self) -> None:
        self._running.clear()


def sweep(path: Path) -> None:
    """Run the sweep in `path` to its end, whatever is there already."""
    config = with_fields(recipe(), TINY)
    planned = Sweep.open(path) if Sweep.exists(path) else Sweep.of_seeds(config, SEEDS, path)
    for _ in options.run_sweep(planned, options.SweepOptions(jobs=2, on="local"), "builtins:id"):
        pass


def kill_before(step: int, path: Path) -> None:
    """End this process before it changes the disk below `path` for the given time."""
    count = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if (writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")) and str(path) in str(arguments[0]):
            count += 1
            if count == step:
                os._exit(KILLED)

    sys.addaudithook(audit)


def fork(work: Callable[[], None]) -> int:
    """The exit code of a child process that does the work."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def table(path: Path, real: bool) -> list[Any]:
    """The table of a sweep without seconds, and what its runs contain."""
    with open(path / "results.csv", newline="") as file:
        rows: list[Any] = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    opened = Sweep.open(path)
    return rows + [fingerprint(opened.run(trial)) for trial in opened.trials if real]


def main() -> None:
    folder, real = Path(sys.argv[1]), sys.argv[2] == "real"
    if not real:
        options.LocalExecutor = FakeExecutor  # type: ignore[misc]
    whole = folder / "whole"
    assert fork(lambda: sweep(whole)) == 0
    step, kills, code = 1, -1, KILLED
    while code == KILLED:
        path = folder / f"killed-{step}"

        def killed(step: int = step, path: Path = path) -> None:
            kill_before(step, path)
            sweep(path)

        code = fork(killed)
        assert code in (0, KILLED), f"step {step}: exit code {code}"
        assert fork(lambda path=path: sweep(path)) == 0, f"step {step}: not resumed"
        assert table(path, real) == table(whole, real), f"step {step}: another table"
        step, kills = step + (5 if real else 1), kills + 1
    print(kills)


if __name__ == "__main__":
    main()
