"""The base class of all configuration models. An error of pydantic becomes one line here. Free of torch."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from modelnative.errors import UserError, shown, unknown

TYPES = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", dict: "a table"}
RANGE_ERRORS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
BOUNDS = ("ge", "gt", "le", "lt")
OWN_NAME = re.compile(r"[\w./-]+:\w+")


class ConfigError(UserError):
    """One configuration field is wrong.

    Attributes:
        path: the names that lead to the field, outermost first; empty for the configuration as a whole.
        problem: what is wrong, without the field's name.
    """

    def __init__(self, path: Sequence[str], problem: str) -> None:
        self.path = tuple(path)
        self.problem = problem
        super().__init__(f"{'.'.join(self.path) or 'config'}: {problem}")


class ConfigModel(BaseModel):
    """A frozen set of validated fields.

    Types are strict (`"3"` is not an int; an int is a float), unknown fields and non-finite numbers are refused.

    Raises:
        UserError: a field is unknown or its value is not allowed. The message is one line.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise config_error(error, type(self)) from None


Model = TypeVar("Model", bound=ConfigModel)


def with_fields(config: Model, changes: Mapping[str, Any]) -> Model:
    """Return a validated copy of a configuration in which some fields are changed.

    Args:
        config: any configuration model. It is not changed.
        changes: new values by field name; the fields of a nested model as a nested dictionary.

    Raises:
        UserError: a field is unknown or its value is not allowed.

    Example:
        >>> from modelnative.training.config import TrainConfig
        >>> with_fields(TrainConfig(), {"seed": 3, "policy": {"width": 32}}).policy.width
        32
        >>> with_fields(TrainConfig(), {"policy": {"widht": 32}})
        Traceback (most recent call last):
        modelnative.policies.config_model.ConfigError: policy: unknown field 'widht'; did you mean 'width'? Allowed: ...
    """
    fields = dict(config)
    for name, value in changes.items():
        current = fields.get(name)
        is_nested = isinstance(current, ConfigModel) and isinstance(value, Mapping)
        fields[name] = {**current.model_dump(), **value} if isinstance(current, ConfigModel) and is_nested else value
    return type(config)(**fields)


def read_table(field: str, path: Path) -> dict[str, Any]:
    """The content of a TOML or JSON file that a user has written.

    Raises:
        UserError: it cannot be read, or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows writes a byte-order mark
        return json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"{field}: {shown(str(path))} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # a null byte in the path is a ValueError, too
        raise UserError(f"{field}: {shown(str(path))} is neither TOML nor JSON ({error})") from error


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by dotted names as nested tables, as `with_fields` takes them.

    Example:
        >>> nested({"seed": 3, "policy.width": 32})
        {'seed': 3, 'policy': {'width': 32}}
    """
    tables: dict[str, Any] = {}
    for name, value in fields.items():
        group, _, leaf = name.partition(".")
        if leaf:
            tables.setdefault(group, {})[leaf] = value
        else:
            tables[name] = value
    return tables


def dotted(tables: Mapping[str, Any], whole: str = "") -> dict[str, Any]:
    """The inverse of `nested`: fields by dotted names; the table `whole` stays one.

    Example:
        >>> dotted({"seed": 3, "policy": {"width": 32}})
        {'seed': 3, 'policy.width': 32}
    """
    fields: dict[str, Any] = {}
    for name, value in tables.items():
        is_table = isinstance(value, Mapping) and name != whole
        fields.update({f"{name}.{leaf}": v for leaf, v in value.items()} if is_table else {name: value})
    return fields


def config_error(error: ValidationError, model: type[BaseModel]) -> ConfigError:
    """Translate the first problem of a pydantic error into one line.

    Example:
        >>> from modelnative.training.config import LossConfig
        >>> LossConfig(gamma=1.5)
        Traceback (most recent call last):
        modelnative.policies.config_model.ConfigError: gamma: 1.5 is not allowed; expected above 0, at most 1
    """
    first = error.errors(include_url=False)[0]
    path = tuple(str(name) for name in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):  # of a nested model or of a validator
        return ConfigError(path + cause.path, cause.problem)
    if first["type"] == "extra_forbidden":
        fields = _model_at(model, path[:-1]).model_fields
        return ConfigError(path[:-1], unknown("field", path[-1], fields))
    field = _model_at(model, path[:-1]).model_fields.get(path[-1]) if path else None
    if field is None:
        return ConfigError(path, not_allowed(first["input"], first["msg"].lower()))
    if first["type"] == "literal_error":
        return ConfigError(path, unknown("value", first["input"], get_args(value_type(field))))
    expected = limits(field) if first["type"] in RANGE_ERRORS else expected_value(field)
    return ConfigError(path, not_allowed(first["input"], expected))


def not_allowed(value: Any, expected: str) -> str:
    """The problem of a value outside what is expected, as `ConfigError` takes it."""
    return f"{shown(value)} is not allowed; expected {expected}"


def name_in(registry: Mapping[str, str]) -> Callable[[str], str]:
    """A validator of names: one of the registry, or `module:Name` for an object of the user's own."""

    def check(value: str) -> str:
        if value in registry or OWN_NAME.fullmatch(value):
            return value
        raise ConfigError((), unknown("value", value, [*registry, "module:Name"]))

    return check


def name_schema(registry: Mapping[str, str]) -> dict[str, Any]:
    """The JSON schema of such a name, from which editors complete."""
    return {"anyOf": [{"enum": list(registry)}, {"pattern": OWN_NAME.pattern}]}


def leaf_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of a model that is not itself a model, by dotted name.

    Example:
        >>> from modelnative.training.config import TrainConfig
        >>> [name for name, _ in leaf_fields(TrainConfig) if name.startswith("optimizer")][0]
        'optimizer.learning_rate'
    """
    for name, field in model.model_fields.items():
        kind = value_type(field)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaf_fields(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def value_type(field: FieldInfo) -> Any:
    """The type of a field's values, other than None."""
    choices = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    if get_origin(field.annotation) in (dict, Literal) or not choices:
        return field.annotation
    return choices[0]


def limits(field: FieldInfo) -> str:
    """The range of a number in words, or nothing where there is none.

    Example:
        >>> from modelnative.training.config import LossConfig
        >>> limits(LossConfig.model_fields["gamma"]), limits(LossConfig.model_fields["clip_low"])
        ('above 0, at most 1', 'from 0 to below 1')
    """
    bounds = {name: getattr(entry, name) for entry in field.metadata for name in BOUNDS if hasattr(entry, name)}
    if not bounds:
        return ""
    low, most = (f"from {bounds['ge']} to", "") if "ge" in bounds else (f"above {bounds['gt']},", "at most ")
    high = f"below {bounds['lt']}" if "lt" in bounds else f"{most}{bounds['le']}"
    return f"{low} {high}"


def expected_value(field: FieldInfo) -> str:
    """Type and range of a field in words.

    Example:
        >>> from modelnative.training.config import LossConfig
        >>> expected_value(LossConfig.model_fields["epochs"])
        'a whole number from 1 to 1000'
    """
    kind = value_type(field)
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if any(getattr(entry, "min_length", None) for entry in field.metadata):
        return "text that is not empty"
    return f"{TYPES.get(get_origin(kind) or kind, 'a table of fields')} {limits(field)}".strip()


def _model_at(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """The nested model that a path of field names leads to."""
    for name in path:
        field = model.model_fields.get(name)
        kind = value_type(field) if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        model = kind
    return model
