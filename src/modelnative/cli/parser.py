"""Parsers of commands: argparse, with its errors as `UserError`, and flags made from configuration models."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic.fields import FieldInfo

from modelnative.cli import COMMANDS, PROGRAM
from modelnative.errors import UserError
from modelnative.policies.config_model import leaf_fields, value_type, with_fields
from modelnative.training.config import TrainConfig

NAMES = ("task", "core", "algorithm", "curriculum")  # the fields that choose a recipe
# What other libraries call some fields.
OTHER_NAMES = {
    "lr": "optimizer.learning_rate",
    "clip": "loss.clip_high",
    "vf-coef": "loss.value_weight",
    "ent-coef": "loss.entropy_weight",
    "batch-size": "episodes",
}
METAVARS = {int: "INT", float: "FLOAT", str: "TEXT"}


class Parser(argparse.ArgumentParser):
    """The parser of one command. Underscores in flags count as dashes.

    Args:
        command: its name in `COMMANDS`.
        description: its help, below the summary.
    """

    def __init__(self, command: str, description: str = "", **options: Any) -> None:
        text = f"{COMMANDS[command][1]}\n\n{description}".strip()
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(
            prog=f"{PROGRAM} {command}", description=text, formatter_class=formatter, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found as a `UserError`."""
        raise UserError(f"{message}; see: {self.prog} --help")

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all arguments.

        Raises:
            UserError: a flag is unknown (the message has the nearest one), or a value is missing or of another type.
        """
        found, unknown = self.parse_known_args(normalized(arguments))
        if unknown:
            raise UserError(self._unknown(unknown[0]))
        return found

    def _unknown(self, argument: str) -> str:
        name = argument.split("=")[0]
        if not name.startswith("-"):
            return f"{argument!r} is one argument too many; see: {self.prog} --help"
        flags = [flag for action in self._actions for flag in action.option_strings]
        near = _nearest(name.lstrip("-"), flags)
        return f"{name}: unknown flag{f'; did you mean {near}?' if near else ';'} see: {self.prog} --help"


def _nearest(name: str, flags: Sequence[str]) -> str | None:
    """The flag that a name without its dashes most likely means: by another name for it, its last part, or spelling."""
    from modelnative.runs.upgrade import earlier_names

    others = {flag(other).lstrip("-"): flag(field) for other, field in {**earlier_names(), **OTHER_NAMES}.items()}
    whole = {known.lstrip("-"): known for known in flags}
    last = {known.rpartition(".")[2]: whole[known] for known in reversed(whole)}
    for names, cutoff in ((others, 1.0), (last, 1.0), (whole, 0.6), (last, 0.6)):
        for found in difflib.get_close_matches(name, names, n=1, cutoff=cutoff):
            if names[found] in flags:
                return names[found]
    return None


class OnOff(argparse.Action):
    """True for the first of its flags, False for the second."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, option == self.option_strings[0])


def normalized(arguments: Sequence[str]) -> list[str]:
    """Arguments with dashes for the underscores in the names of flags."""
    result = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        result.append(name.replace("_", "-") + equals + value if name.startswith("--") else argument)
    return result


def flag(name: str) -> str:
    """The flag of a field.

    Example:
        >>> flag("optimizer.learning_rate")
        '--optimizer.learning-rate'
    """
    return f"--{name.replace('_', '-')}"


def add_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup, description: str) -> None:
    """The flag `--options KEY=VALUE …`, which may be repeated."""
    parser.add_argument(
        "--options", type=key_value, nargs="+", action="extend", metavar="KEY=VALUE", help=description, default=[]
    )


def key_value(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as JSON if it is JSON, else as text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected KEY=VALUE, such as feedback=none")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


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
        both = (flag(name), flag(f"{parent}{dot}no-{leaf}"))
        group.add_argument(*both, dest=name, action=OnOff, nargs=0, default=argparse.SUPPRESS, help=text)
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
    for name in NAMES:
        first.add_argument(flag(name), *(["--policy"] if name == "core" else []), dest=name)
    chosen = vars(first.parse_known_args(normalized(arguments))[0])
    path = chosen.pop("config")
    table = read_config(path) if path else {}
    default = _recipe(chosen, table, usual)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML or JSON with the fields below, such as a run's config.json"
    )
    add_fields(parser, default)
    parser.usage = f"{parser.prog} [OPTIONS]"
    found = parser.read(arguments)
    changes: dict[str, Any] = {"options": {**default.options, **dict(found.options)}}
    for name, _ in leaf_fields(TrainConfig):
        if name in vars(found) and name != "options":
            _set(changes, name, getattr(found, name))
    return found, with_fields(default, changes)


def _recipe(chosen: dict[str, str | None], table: dict[str, Any], usual: dict[str, Any]) -> TrainConfig:
    from modelnative.training.recipes import recipe

    names = {name: table.get(name, usual.get(name)) if value is None else value for name, value in chosen.items()}
    given = {name: value for name, value in names.items() if value is not None}
    config = recipe(**given) if given else TrainConfig()  # which is equal to recipe(), and does not import torch
    for changes in (usual, table):
        config = with_fields(config, {name: value for name, value in changes.items() if name not in names})
    return config


def _set(changes: dict[str, Any], name: str, value: Any) -> None:
    *groups, leaf = name.split(".")
    for group in groups:
        changes = changes.setdefault(group, {})
    changes[leaf] = value


def read_config(path: Path) -> dict[str, Any]:
    """The fields in a TOML or JSON file.

    Raises:
        UserError: it cannot be read, or is neither.
    """
    from modelnative.runs.upgrade import upgraded_config

    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"config: {str(path)!r} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"config: {str(path)!r} is neither TOML nor JSON ({error})") from error
    return upgraded_config(table)


def report(line: str) -> None:
    """Show progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Print JSON on standard output."""
    print(json.dumps(value, indent=2))
