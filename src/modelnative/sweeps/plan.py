"""From a spec to its trials: the configuration of each, and a name that does not depend on where it is planned."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelnative.errors import UserError
from modelnative.policies.config_model import nested
from modelnative.sweeps.spec import Fields, Spec
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
    cells: list[Fields] = [
        dict(zip(spec.grid, values, strict=True)) for values in itertools.product(*spec.grid.values())
    ]
    if spec.trials and not spec.grid:
        cells = []  # the empty product is one cell, which was not asked for
    cells += spec.trials
    # All cells of a seed come before the next seed, so that a sweep that is half done can already be compared.
    seeds: Sequence[Fields] = [{"seed": seed} for seed in spec.seeds] or [{}]
    wanted = [{**cell, **seed} for seed in seeds for cell in cells]
    varied = list(dict.fromkeys(name for fields in wanted for name in fields))
    trials = [_trial(spec.base, fields, varied) for fields in wanted]
    seen: dict[str, Trial] = {}
    for trial in trials:
        key = _canonical(trial.config)
        if key in seen:
            raise UserError(
                f"trials: {_label(trial.fields)!r} is not allowed twice; expected each trial to differ from all others"
            )
        seen[key] = trial
    return tuple(trials)


def check(trials: Sequence[Trial], *, devices: bool = True) -> None:
    """Make every task and use every device that the trials name.

    Raises:
        UserError: a task, an option or a device is not available.
    """
    from modelnative.runs.training import require_device
    from modelnative.tasks import make_task

    seen = set()
    for trial in trials:
        config = trial.config
        key = (config.task, json.dumps(config.options, sort_keys=True), config.device)
        if key not in seen:
            seen.add(key)
            try:
                make_task(config.task, **config.options)
                if devices:
                    require_device(config.device)
            except UserError as error:
                raise UserError(f"trial {_label(trial.fields)}: {error}") from error


def field_of(config: TrainConfig, name: str) -> Any:
    """The value of a field by its dotted name; None for an option that is not set.

    Example:
        >>> field_of(TrainConfig(), "policy.width")
        64
    """
    group, _, leaf = name.partition(".")
    value = getattr(config, group)
    if not leaf:
        return value
    return value.get(leaf) if isinstance(value, dict) else getattr(value, leaf)


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
