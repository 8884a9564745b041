"""How fast this machine trains."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from modelnative.api.training import train
from modelnative.speed.measure import BenchResult, TimeToSolution, default_config, require_measurable
from modelnative.speed.measure import bench as measure
from modelnative.speed.profile import ProfiledOperation, profile_updates
from modelnative.training.config import TrainConfig


def bench(
    config: TrainConfig | None = None,
    *,
    seconds: float = 5.0,
    processes: int | None = None,
    compiled: bool = False,
    solve: int = 0,
    progress: Callable[[str], None] | None = None,
) -> BenchResult:
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
    return measure(
        config or default_config(),
        seconds=seconds,
        processes=processes,
        compiled=compiled,
        solve=solve,
        train=_solve,
        progress=progress,
    )


def _solve(config: TrainConfig) -> TimeToSolution:
    """Train one seed to its end, in a run folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        end = train(config=config, out=Path(folder) / "run")
    return TimeToSolution(config.seed, end.seconds, end.updates, end.evaluation.perfect, end.evaluation.line())


def profile(config: TrainConfig | None = None) -> list[ProfiledOperation]:
    """What torch does in an update of `bench`'s training, with one thread, the most expensive operation first.

    Raises:
        UserError: the configuration is not sensible.
    """
    config = config or default_config()
    require_measurable(config)
    return profile_updates(config)
