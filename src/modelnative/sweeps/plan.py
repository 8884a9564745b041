"""From a spec to its trials: the configuration of each, and a name that does not depend on where it is planned."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelnative.errors import UserError, require
from modelnative.policies.config_model import dotted, nested
from modelnative.sweeps.spec import MAX_TRIALS, Fields, Spec
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe

READABLE = 100  # characters of a name before its hash; a file's name has at most 255 bytes
RECIPE = ("task", "core", "algorithm", "curriculum")  # these choose the defaults of all other fields


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    Attributes:
        name: of its folder: what it tries, and a hash of its whole configuration.
        fields: the fields that this sweep tries, with this trial's values.
        config: all of them.
    """

    name: str
    fields: Fields
    config: TrainConfig


def plan(spec: Spec) -> tuple[Trial, ...]:
    """The trials: the product of the grid, then the trials that are listed, for one seed after the other.

    Raises:
        UserError: a value is not allowed, or two trials are the same training.

    Example:
        >>> spec = Spec("widths", grid={"policy.width": [16, 32]}, seeds=(0, 1))
        >>> [trial.name.rpartition("-")[0] for trial in plan(spec)]
        ['policy.width=16,seed=0', 'policy.width=32,seed=0', 'policy.width=16,seed=1', 'policy.width=32,seed=1']
    """
    count = (math.prod(map(len, spec.grid.values())) + len(spec.trials)) * max(1, len(spec.seeds))
    require(count <= MAX_TRIALS, "trials", count, f"at most {MAX_TRIALS:,} from grid, trials and seeds")
    # Without a grid, the product is one empty cell; it is the only trial if none is listed.
    product = itertools.product(*spec.grid.values()) if spec.grid or not spec.trials else ()
    cells = [*(dict(zip(spec.grid, values, strict=True)) for values in product), *spec.trials]
    # All cells of a seed come before the next seed, so that a sweep that is half done can already be compared.
    seeds: Sequence[Fields] = [{"seed": seed} for seed in spec.seeds] or [{}]
    wanted = [{**cell, **seed} for seed in seeds for cell in cells]
    varied = list(dict.fromkeys(name for fields in wanted for name in fields))
    trials = [_trial(spec.base, fields, varied) for fields in wanted]
    seen: set[str] = set()
    for trial in trials:
        if (config := _canonical(trial.config)) in seen:
            raise UserError(
                f"trials: {_label(trial.fields)!r} is not allowed twice; expected each trial to differ from all others"
            )
        seen.add(config)
    return tuple(trials)


def check(trials: Sequence[Trial], *, devices: bool = True) -> None:
    """Make every task and use every device that the trials name.

    Raises:
        UserError: a task, an option or a device is not available.
    """
    from modelnative.runs.training import require_device
    from modelnative.tasks import make_task

    distinct = {json.dumps([t.config.task, t.config.options, t.config.device], sort_keys=True): t for t in trials}
    for trial in distinct.values():
        try:
            make_task(trial.config.task, **trial.config.options)
            if devices:
                require_device(trial.config.device)
        except UserError as error:
            raise UserError(f"trial {_label(trial.fields)}: {error}") from error


def field_of(config: TrainConfig, name: str) -> Any:
    """The value of a field by its dotted name; None for an option that is not set.

    Example:
        >>> field_of(TrainConfig(), "policy.width")
        64
    """
    return dotted(config.model_dump()).get(name)


def _trial(base: Fields, fields: Fields, varied: Sequence[str]) -> Trial:
    merged = {**base, **fields}
    try:
        chosen = {name: merged.pop(name) for name in RECIPE if name in merged}
        config = with_fields(recipe(**chosen), nested(merged))
        config = with_fields(config, {"threads": config.threads or 1})  # trials share the machine
    except UserError as error:
        raise UserError(f"trial {_label(fields)}: {error}") from error
    identity = hashlib.sha256(_canonical(config).encode()).hexdigest()[:8]
    readable = re.sub(r"[^\w.,=+-]", ".", _label(fields), flags=re.ASCII)[:READABLE]
    return Trial(f"{readable}-{identity}", {name: field_of(config, name) for name in varied}, config)


def _label(fields: Fields) -> str:
    """The fields of a trial in short: `algorithm=ppo,seed=3`."""
    parts = (f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items())
    return ",".join(parts) or "base"


def _canonical(config: TrainConfig) -> str:
    return json.dumps(config.model_dump(), sort_keys=True)
