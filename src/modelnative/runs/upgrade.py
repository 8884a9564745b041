"""Configurations of format modelnative/1, in the names of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelnative.errors import UserError

FORMATS = ("modelnative/1", "modelnative/2")
RENAMED = {"dials": "options", "confidence": "target_success"}
RENAMED_IN = {
    "policy": {"copy": "copy_head"},
    "loss": {"trace": "gae_lambda", "group": "num_generations", "scale_by_deviation": "scale_rewards"},
    "optimizer": {
        "cool_from": "anneal_below_failure",
        "floor": "min_lr_fraction",
        "max_gradient_norm": "max_grad_norm",
    },
    "curricula": {"maintain": "min_stage_weight", "memory": "success_ema"},
}


def upgraded_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration that a file has, under their names of today.

    Only a file that says `"format": "modelnative/1"` has old names. The core `tutorial-gru` of that format is `gru`
    without a copy head.

    Raises:
        UserError: the file says another format.

    Example:
        >>> upgraded_config({"format": "modelnative/1", "confidence": 0.9, "loss": {"trace": 0.5}})
        {'target_success': 0.9, 'loss': {'gae_lambda': 0.5}}
    """
    found = values.get("format", FORMATS[-1])
    if found not in FORMATS:
        raise UserError(f"format: {found!r} is not allowed; expected {' or '.join(FORMATS)}")
    fields = {name: value for name, value in values.items() if name != "format"}
    return upgraded_fields(fields) if found == FORMATS[0] else fields


def upgraded_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration of format modelnative/1, under their names of today."""
    fields = _renamed(values, RENAMED)
    for group, names in RENAMED_IN.items():
        if isinstance(fields.get(group), Mapping):
            fields[group] = _renamed(fields[group], names)
    if fields.get("core") == "tutorial-gru":
        fields["core"] = "gru"
        policy = fields.setdefault("policy", {})
        if isinstance(policy, Mapping):  # anything else is refused where the configuration is made
            fields["policy"] = {**policy, "copy_head": False}
    return fields


def earlier_names() -> dict[str, str]:
    """The field that each name of format modelnative/1 is today, for names with their group and without it.

    Example:
        >>> earlier_names()["loss.trace"], earlier_names()["trace"]
        ('loss.gae_lambda', 'loss.gae_lambda')
    """
    names = dict(RENAMED)
    for group, renamed in RENAMED_IN.items():
        for old, new in renamed.items():
            names[old] = names[f"{group}.{old}"] = f"{group}.{new}"
    return names


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}
