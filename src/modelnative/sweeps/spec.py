"""The specification of a sweep: a TOML or JSON file. Every mistake is found before anything starts."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelnative.errors import UserError, choose, require
from modelnative.policies.config_model import leaf_fields, read_table
from modelnative.runs.upgrade import earlier_names, upgraded_config
from modelnative.tasks.importing import require_trusted
from modelnative.training.config import TrainConfig

MAX_TRIALS = 10_000
PARTS = ("name", "seeds", "base", "grid", "trials")
FIELDS = [name for name, _ in leaf_fields(TrainConfig) if name != "options"]  # its fields are those of the task
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


def read_spec(path: Path) -> Spec:
    """The spec in a file; its name is the file's where it says none.

    Raises:
        UserError: it cannot be read, is neither TOML nor JSON, or says what is not allowed.
    """
    spec = parse_spec({"name": path.stem, **read_table("spec", path)})
    for fields in (spec.base, spec.grid, *spec.trials):
        require_trusted(path, fields)
    return spec


def parse_spec(table: dict[str, Any]) -> Spec:
    """A spec from its tables. Field names may be dotted or nested; `base` may be the `config.json` of a run.

    Raises:
        UserError: naming the entry, its value and what is allowed.

    Example:
        >>> parse_spec({"grid": {"policy": {"width": [16, 32]}}, "seeds": 2})
        Spec(name='sweep', base={}, grid={'policy.width': [16, 32]}, trials=(), seeds=(0, 1))
        >>> parse_spec({"grid": {"policy.widht": [16, 32]}})
        Traceback (most recent call last):
        modelnative.errors.UserError: grid: unknown field 'policy.widht'; did you mean 'policy.width'? see: ...
    """
    for part in table:
        choose("spec", part, PARTS)
    base, trials = table.get("base", {}), table.get("trials", ())
    require(isinstance(trials, (list, tuple)), "trials", trials, "a list of tables, each written under [[trials]]")
    spec = Spec(
        name=_name(table.get("name", "sweep")),
        base=_fields("base", upgraded_config(base) if isinstance(base, dict) else base),
        grid=_grid(table.get("grid", {})),
        trials=tuple(_fields("trials", trial) for trial in trials),
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

    def entries(spec: Spec) -> dict[str, str]:
        fields = {f"{part}.{name}": value for part in ("base", "grid") for name, value in vars(spec)[part].items()}
        values = {"seeds": spec.seeds, **fields, "trials": spec.trials}
        return {name: json.dumps(value) for name, value in values.items()}  # as JSON, because True == 1 == 1.0

    a, b = entries(ours), entries(theirs)
    changed = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    return [f"{name}: {a.get(name, 'nothing')} instead of {b.get(name, 'nothing')}" for name in changed]


def _name(value: Any) -> str:
    legal = isinstance(value, str) and re.fullmatch(r"[\w.-]+", value) and value.strip(".")
    require(bool(legal), "name", value, "letters, digits, dots, dashes and underscores")
    return str(value)


def _seeds(value: Any) -> tuple[int, ...]:
    seeds = range(value) if type(value) is int and 0 < value <= MAX_TRIALS else value
    legal = isinstance(seeds, (list, tuple, range)) and all(type(seed) is int for seed in seeds)
    require(legal, "seeds", value, f"how many, from 1 to {MAX_TRIALS:,}, or a list of whole numbers")
    require(len(set(seeds)) == len(seeds), "seeds", value, "each seed once")
    return tuple(seeds)


def _grid(value: Any) -> dict[str, list[Any]]:
    grid = _fields("grid", value)
    for name, values in grid.items():
        require(isinstance(values, list) and bool(values), f"grid.{name}", values, "a list of values to try")
        require(not any(isinstance(v, (dict, list)) for v in values), f"grid.{name}", values, "plain values")
    return grid


def _fields(where: str, value: Any) -> Fields:
    """A table of fields by their dotted names, each of which is known to be a field."""
    require(isinstance(value, dict), where, value, "a table of fields")
    flat: Fields = {}
    for group, content in value.items():
        nested = isinstance(content, dict) and "." not in group
        entries = {f"{group}.{leaf}": entry for leaf, entry in content.items()} if nested else {group: content}
        for name, entry in entries.items():
            if name not in FIELDS and not name.startswith("options."):
                raise UserError(f"{where}: unknown field {name!r}{_hint(name)} see: modelnative train --help")
            for plain in entry if isinstance(entry, list) else [entry]:
                legal = isinstance(plain, (str, int, float, list, dict, type(None)))
                require(legal, f"{where}.{name}", plain, "text, a number, true or false")
            if name in flat:
                raise UserError(f"{where}.{name}: {entry!r} is given beside {flat[name]!r}; give one of the two")
            flat[name] = entry
    return flat


def _hint(unknown: str) -> str:
    """The field that an unknown name most likely means: by spelling, by its last part, or by an earlier name."""
    names = {**{name.rpartition(".")[2]: name for name in FIELDS}, **{name: name for name in FIELDS}}
    names |= {"options": "options.NAME", **earlier_names()}
    near = [*difflib.get_close_matches(unknown, names), *difflib.get_close_matches(unknown.partition(".")[0], names)]
    return f"; did you mean {names[near[0]]!r}?" if near else ";"
