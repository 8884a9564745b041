"""Flags and files for the fields of a training, made from the configuration models."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from modelnative.cli.parser import Parser, Trust, add_options, flag, normalized, true_or_false
from modelnative.policies.config_model import leaf_fields, nested, read_table, value_type, with_fields
from modelnative.runs.upgrade import upgraded_config
from modelnative.tasks.importing import NAMES, require_trusted, trust
from modelnative.training.config import TrainConfig

METAVARS = {int: "INT", float: "FLOAT", str: "TEXT"}


def add_fields(parser: argparse.ArgumentParser, defaults: TrainConfig) -> None:
    """A flag for each field of a training; a field that is not given is not in the result."""
    groups: dict[str, Any] = {}
    for name, field in leaf_fields(TrainConfig):
        group, _, leaf = name.rpartition(".")
        if group not in groups:
            kind = type(getattr(defaults, group)) if group else TrainConfig
            groups[group] = parser.add_argument_group(group or "training", kind.__doc__)
        default = getattr(getattr(defaults, group) if group else defaults, leaf)
        if name == "options":
            add_options(groups[group], field.description or "")
            continue
        _add_field(groups[group], name, field, default)


def _add_field(group: Any, name: str, field: FieldInfo, default: Any) -> None:
    kind = value_type(field)
    text = f"{field.description} (default: {default})".replace("%", "%%")
    if kind is bool:
        parent, dot, leaf = name.rpartition(".")
        given = {"dest": name, "default": argparse.SUPPRESS}
        group.add_argument(flag(name), type=true_or_false, nargs="?", const=True, metavar="BOOL", help=text, **given)
        group.add_argument(flag(f"{parent}{dot}no-{leaf}"), action="store_false", help="the opposite", **given)
        return
    flags = [flag(name), *(["--policy"] if name == "core" else [])]
    known = METAVARS.get(kind, "TEXT")
    group.add_argument(
        *flags, dest=name, type=kind if kind in METAVARS else str, metavar=known, default=argparse.SUPPRESS, help=text
    )


def read_configured(
    parser: Parser, arguments: Sequence[str], usual: dict[str, Any]
) -> tuple[argparse.Namespace, TrainConfig]:
    """The arguments of a command that has all fields of a training, and the configuration that they ask for.

    A field is what its flag says, else the file of `--config`, else `usual`, else the recipe for the chosen task, core,
    algorithm and curriculum.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.error = parser.error  # type: ignore[method-assign]
    first.add_argument("--config", type=Path)
    first.add_argument("--trust", action=Trust, default=argparse.SUPPRESS)
    for name in NAMES:
        first.add_argument(flag(name), *(["--policy"] if name == "core" else []), dest=name)
    chosen = vars(first.parse_known_args(normalized(arguments))[0])
    path = chosen.pop("config")
    table = upgraded_config(read_table("config", path)) if path else {}
    trust(*filter(None, chosen.values()))
    require_trusted(path, {name: value for name, value in table.items() if chosen.get(name) is None})
    default = _recipe(chosen, table, usual)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML or JSON with the fields below, such as a run's config.json"
    )
    add_fields(parser, default)
    parser.usage = f"{parser.prog} [OPTIONS]"
    found = parser.read(arguments)
    given = {name: getattr(found, name) for name, _ in leaf_fields(TrainConfig) if name in vars(found)}
    given["options"] = {**default.options, **dict(found.options)}
    return found, with_fields(default, nested(given))


def _recipe(chosen: dict[str, str | None], table: dict[str, Any], usual: dict[str, Any]) -> TrainConfig:
    from modelnative.training.recipes import recipe

    names = {name: table.get(name, usual.get(name)) if value is None else value for name, value in chosen.items()}
    given = {name: value for name, value in names.items() if value is not None}
    config = recipe(**given) if given else TrainConfig()  # which is equal to recipe(), and does not import torch
    for changes in (usual, table):
        config = with_fields(config, {name: value for name, value in changes.items() if name not in names})
    return config
