"""Results as they are written: JSON with the names of the fields."""

from __future__ import annotations

import dataclasses
from typing import Any


class Record:
    """A dataclass that is written as JSON."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {field.name: as_json(getattr(self, field.name)) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


def as_json(value: Any) -> Any:
    """A value as JSON: a dataclass by its fields, or as its own `as_dict` says; a tuple as a list.

    Example:
        >>> as_json({"a": (1, None)})
        {'a': [1, None]}
    """
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return Record.as_dict(value)  # type: ignore[arg-type]
    if isinstance(value, dict):
        return {name: as_json(part) for name, part in value.items()}
    return [as_json(part) for part in value] if isinstance(value, (list, tuple)) else value
