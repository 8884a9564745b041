"""The specification of a sweep: a TOML or JSON file. Every mistake is found before anything starts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from modelnative.errors import UserError, choose
from modelnative.policies.config_model import read_table
from modelnative.training.config import TrainConfig

PARTS = ("name", "seeds", "base", "grid", "trials")
Fields = dict[str, Any]  # by dotted name: {"policy.width": 32}


@dataclass(frozen=True)
class Spec:
    """A sweep before it is planned.

    Attributes:
        name: what to call it.
        base: fields that every trial has.
        grid: values to try, by field; the trials are their product.
        trials: more trials, each the fields in which it differs from `base`.
        seeds: each of the above is tried with all of these; empty where the seed is a field like others.
    """

    name: str
    base: Fields = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    trials: tuple[Fields, ...] = ()
    seeds: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `parse_spec` reads it."""
        return {
            "name": self.name,
            "seeds": list(self.seeds),
            "base": self.base,
            "grid": self.grid,
            "trials": list(self.trials),
        }


def read_spec(path: Path) -> Spec:
    """The spec in a file; its name is the file's where it says none.

    Raises:
        UserError: it cannot be read, is neither TOML nor JSON, or says what is not allowed.
    """
    return parse_spec({"name": path.stem, **read_table("spec", path)})


def parse_spec(table: dict[str, Any]) -> Spec:
    """A spec from its tables. Field names may be dotted or nested.

    Raises:
        UserError: naming the entry, its value and what is allowed.

    Example:
        >>> parse_spec({"grid": {"policy": {"width": [16, 32]}}, "seeds": 2})
        Spec(name='sweep', base={}, grid={'policy.width': [16, 32]}, trials=(), seeds=(0, 1))
        >>> parse_spec({"grid": {"policy.widht": [16, 32]}})
        Traceback (most recent call last):
        modelnative.errors.UserError: grid.policy: unknown value 'widht'; did you mean 'width'? Allowed: width, ...
    """
    for part in table:
        choose("spec", part, PARTS)
    spec = Spec(
        name=_name(table.get("name", "sweep")),
        base=_fields("base", table.get("base", {})),
        grid=_grid(table.get("grid", {})),
        trials=_trials(table.get("trials", [])),
        seeds=_seeds(table.get("seeds", [])),
    )
    for where, fields in (("base", spec.base), ("grid", spec.grid), *(("trials", t) for t in spec.trials)):
        if spec.seeds and "seed" in fields:
            raise UserError(f"{where}.seed: {fields['seed']!r} is not allowed beside seeds; give one of the two")
    return spec


def sweep_schema() -> dict[str, Any]:
    """The JSON schema of a specification, for editors."""
    train = TrainConfig.model_json_schema()
    fields = {name: train[name] for name in ("properties", "$defs")}
    table = {"type": "object", "properties": fields["properties"]}
    values = {name: {"type": ["array", "object"]} for name in fields["properties"]}
    properties = {
        "name": {"type": "string"},
        "seeds": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "array", "items": {"type": "integer"}}]},
        "base": table,
        "grid": {"type": "object", "properties": values},
        "trials": {"type": "array", "items": table},
    }
    return {"type": "object", "properties": properties, "additionalProperties": False, "$defs": fields["$defs"]}


def differences(ours: Spec, theirs: Spec) -> list[str]:
    """Where two specs differ apart from their names: `entry: value instead of value`."""

    def flat(spec: Spec) -> dict[str, Any]:
        entries = {f"base.{name}": value for name, value in spec.base.items()}
        entries |= {f"grid.{name}": values for name, values in spec.grid.items()}
        return {"seeds": list(spec.seeds), **entries, "trials": list(spec.trials)}

    a, b = flat(ours), flat(theirs)
    missing = object()

    def text(value: Any) -> str:
        return "nothing" if value is missing else json.dumps(value)

    pairs = {name: (a.get(name, missing), b.get(name, missing)) for name in {**a, **b}}
    # As JSON, because True == 1 == 1.0.
    return [f"{name}: {text(x)} instead of {text(y)}" for name, (x, y) in pairs.items() if text(x) != text(y)]


def _name(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[\w.-]+", value) and value.strip("."):
        return value
    raise UserError(f"name: {value!r} is not allowed; expected letters, digits, dots, dashes and underscores")


def _seeds(value: Any) -> tuple[int, ...]:
    whole = isinstance(value, int) and not isinstance(value, bool)
    seeds = range(value) if whole else value
    if (whole and value < 1) or not isinstance(seeds, (list, range)) or any(type(seed) is not int for seed in seeds):
        raise UserError(f"seeds: {value!r} is not allowed; expected how many, from 1 on, or a list of whole numbers")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: {value!r} is not allowed; expected each seed once")
    return tuple(seeds)


def _trials(value: Any) -> tuple[Fields, ...]:
    if not isinstance(value, list):
        raise UserError(f"trials: {value!r} is not allowed; expected a list of tables, each written under [[trials]]")
    return tuple(_fields("trials", table) for table in value)


def _grid(value: Any) -> dict[str, list[Any]]:
    grid = _fields("grid", value)
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"grid.{name}: {values!r} is not allowed; expected a list of values to try")
        if any(isinstance(v, (dict, list)) for v in values):
            raise UserError(f"grid.{name}: {values!r} is not allowed; expected plain values")
    return grid


def _fields(where: str, value: Any) -> Fields:
    """A table of fields, flat; each is known to be a field."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: {value!r} is not allowed; expected a table of fields")
    known = {name: getattr(TrainConfig(), name) for name in TrainConfig.model_fields}
    flat: Fields = {}
    for name, content in value.items():
        group, _, leaf = name.partition(".")
        choose(where, group, known)
        inner = list(type(known[group]).model_fields) if isinstance(known[group], BaseModel) else None
        if inner is None and group != "options":
            if leaf:
                raise UserError(f"{where}.{name}: not a field; {group} has no fields of its own")
            found = {name: content}
        elif leaf:
            found = {name: content}
        elif isinstance(content, dict):
            found = {f"{group}.{key}": entry for key, entry in content.items()}
        else:
            raise UserError(f"{where}.{group}: {content!r} is not allowed; name a field of it, such as {group}.NAME")
        for key, entry in found.items():
            if inner is not None:
                choose(f"{where}.{group}", key.partition(".")[2], inner)
            for plain in entry if isinstance(entry, list) else [entry]:
                if not isinstance(plain, (str, int, float, list, dict, type(None))):
                    raise UserError(f"{where}.{key}: {plain!r} is not allowed; expected text, a number, true or false")
            if key in flat:
                raise UserError(f"{where}.{key}: {entry!r} is given beside {flat[key]!r}; give one of the two")
            flat[key] = entry
    return flat
