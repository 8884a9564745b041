"""How fast this machine trains."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

from modelnative.api.training import recipe, train
from modelnative.bench.measure import Bench, Solution, check, usual_config
from modelnative.bench.measure import bench as measure
from modelnative.bench.profile import Operation, profile_updates
from modelnative.tasks.contract.task import require
from modelnative.training.config import TrainConfig, with_fields


def bench(
    config: TrainConfig | None = None,
    *,
    seconds: float = 5.0,
    processes: int | None = None,
    compiled: bool = False,
    solve: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Bench:
    """How fast this machine is, and how much of it a training uses.

    Args:
        config: the training; by default the recipe with large batches, one epoch and no hints.
        seconds: for each measurement.
        processes: that train together, each with one thread; by default one for each core.
        compiled: measure the environment under `torch.compile`, too, which takes up to a minute.
        solve: seeds of the recipe to train to their end, for the time to solution.
        progress: is called with a line before everything that takes time.

    Raises:
        UserError: an argument is not sensible, or a process has died.
        KeyboardInterrupt: Ctrl-C; nothing stays behind.

    Example:
        >>> import modelnative as mn
        >>> measured = mn.bench()  # doctest: +SKIP
        >>> measured.rate("training", processes=1).median  # doctest: +SKIP
        231234.5
    """
    config = config or usual_config()
    require(solve >= 0, "solve", solve, "0 (nothing) or more")
    report = progress or (lambda line: None)
    arguments = {"seconds": seconds, "processes": processes, "compiled": compiled}
    measured = measure(config, progress=report, **arguments)  # type: ignore[arg-type]
    return dataclasses.replace(measured, solved=tuple(_solve(config, seed, report) for seed in range(solve)))


def _solve(config: TrainConfig, seed: int, report: Callable[[str], None]) -> Solution:
    """Train a seed of the task's recipe to its end, and keep the verdict only."""
    usual = recipe(config.task, config.algorithm, config.core)
    report(f"time to solution: seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        finished = train(config=with_fields(usual, {"options": config.options, "seed": seed}), out=Path(folder) / "run")
    verdict = finished.evaluation
    return Solution(seed, finished.seconds, finished.updates, verdict.perfect, verdict.line())


def profile(config: TrainConfig | None = None) -> list[Operation]:
    """What torch does in an update of `bench`'s training, with one thread, the most expensive operation first.

    Raises:
        UserError: the configuration is not sensible.
    """
    config = config or usual_config()
    check(config)
    return profile_updates(config)
