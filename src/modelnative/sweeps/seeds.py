"""Several seeds of one configuration, as a sweep."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from modelnative.errors import UserError
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.plan import plan
from modelnative.sweeps.spec import parse_spec
from modelnative.tasks.contract.task import require
from modelnative.training.config import TrainConfig


def seeds_sweep(config: TrainConfig, seeds: int, out: Path) -> Sweep:
    """A sweep with one trial for each of the seeds `config.seed`, `config.seed + 1`, …; nothing is written yet.

    The run of seed N is in `out/trials/seed-N`. Each trial has one thread unless `config.threads` says otherwise. Its
    weights are bit-identical to those of the same training alone.

    Raises:
        UserError: a field is not allowed, or `out` exists already.

    Example:
        >>> sweep = seeds_sweep(TrainConfig(seed=3), 2, Path("runs/two"))
        >>> [(trial.name, trial.config.seed, trial.config.threads) for trial in sweep.trials]
        [('seed-3', 3, 1), ('seed-4', 4, 1)]
    """
    require(seeds >= 1, "seeds", seeds, "at least 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"out: {str(out)!r} exists already; choose another folder, or continue it with: modelnative resume {out}"
        )
    fields = config.model_dump()
    first = fields.pop("seed")
    name = re.sub(r"[^\w.-]", ".", str(config.task))
    spec = parse_spec({"name": name, "seeds": list(range(first, first + seeds)), "base": fields})
    trials = (dataclasses.replace(trial, name=f"seed-{trial.config.seed}") for trial in plan(spec))
    return Sweep(out, spec, tuple(trials))
