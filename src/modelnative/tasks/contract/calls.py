"""Typed calls: how a language model acts in an episode, in place of single tokens. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelnative.errors import UserError, unknown
from modelnative.tasks.tools.tool import Kind


class Refusal(UserError):
    """A call that cannot be made. Its message is for the model: it says why. Nothing was changed."""


@dataclass(frozen=True)
class Argument:
    """An argument of a call.

    Attributes:
        kinds: the kinds of values that it accepts, at least one.
        doc: its description.

    Example:
        >>> Argument((Kind(int),), "the node").schema()
        {'type': 'integer', 'description': 'the node'}
    """

    kinds: tuple[Kind, ...]
    doc: str

    def convert(self, name: str, value: object) -> Any:
        """Return the value as one of the kinds; raises `Refusal`, which begins with `name`."""
        errors = []
        for kind in self.kinds:
            try:
                return kind.convert(value)
            except TypeError as error:
                errors.append(str(error))
        raise Refusal(f"{name}: {'; '.join(errors)}")

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        schemas = [kind.schema() for kind in self.kinds]
        if len(schemas) > 1:
            return {"type": [schema["type"] for schema in schemas], "description": self.doc}
        return {**schemas[0], "description": self.doc}


@dataclass(frozen=True)
class Call:
    """A function that a language model can call; a call is the same as pressing some keys.

    Attributes:
        name: the name of the function.
        doc: what it does, in a sentence or two.
        keys: from the state of the episode (a batch of one) and the arguments by name, the names of the keys to press.
            Raises `Refusal` if there are none.
        read: the inverse, for transcripts: from the state and the keys to press, the arguments of a call that presses
            the first of them, and how many it presses; None if there is no such call.
        arguments: the arguments by name, in order.
        uses: how many keys it presses, for people and models.
        shows_each: whether the model reads the feedback after each of the keys; otherwise after the last one.
    """

    name: str
    doc: str
    keys: Callable[[Any, Mapping[str, Any]], Sequence[str]]
    read: Callable[[Any, Sequence[str]], tuple[dict[str, Any], int] | None]
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    uses: str = "1"
    shows_each: bool = False

    def checked(self, given: object) -> dict[str, Any]:
        """Return the arguments, converted; raises `Refusal` if one is missing, unknown or of another kind."""
        if not isinstance(given, Mapping):
            raise Refusal(f"{self.name}: expected arguments by name: {', '.join(self.arguments) or 'none'}")
        for name in given:
            if name not in self.arguments:
                raise Refusal(f"{self.name}: {unknown('argument', name, self.arguments or ['none'])}")
        for name in self.arguments:
            if name not in given:
                raise Refusal(f"{self.name}: the argument {name!r} is missing")
        return {name: argument.convert(name, given[name]) for name, argument in self.arguments.items()}

    def schema(self) -> dict[str, Any]:
        """Return the name, description and parameters in the format of OpenAI's function calling."""
        properties = {name: argument.schema() for name, argument in self.arguments.items()}
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.doc,
                "parameters": {**parameters, "additionalProperties": False},
            },
        }


def press_call(vocabulary: Sequence[str], example: Sequence[str], typed: Sequence[str] | None = None) -> Call:
    """The call `press(keys)`, which every task has unless it defines others.

    Args:
        vocabulary: the names of all keys.
        example: a few of them, for the description.
        typed: the keys that the description lists; by default all.
    """

    def keys(state: object, arguments: Mapping[str, Any]) -> Sequence[str]:
        words: list[str] = arguments["keys"].replace(",", " ").split()
        if not words:
            raise Refusal("keys: no key is given")
        for word in words:
            if word not in vocabulary:
                raise Refusal(f"keys: {unknown('key', word, typed or vocabulary)}")
        return words

    return Call(
        "press",
        "Press keys, one after the other.",
        keys,
        lambda state, keys: ({"keys": " ".join(keys)}, len(keys)) if keys else None,
        {"keys": Argument((Kind(str),), f"names of keys separated by spaces, such as {' '.join(example)!r}")},
        uses="1 for each key",
        shows_each=True,
    )


def pattern_call(name: str, doc: str, pattern: Sequence[str], arguments: Mapping[str, Argument] | None = None) -> Call:
    """A call that always presses keys of the same pattern.

    Args:
        name, doc: of the call.
        pattern: the keys in order; the name of an argument stands for the key of its value.
        arguments: with listed choices.

    Example:
        >>> key, value = Kind(str, ("a", "b")), Kind(int, (0, 1))
        >>> pair = {"key": Argument((key,), "a key"), "value": Argument((value,), "a value")}
        >>> put = pattern_call("put", "Write a pair.", ("PUT", "key", "value"), pair)
        >>> put.keys(None, {"key": "b", "value": 1})
        ['PUT', 'b', '1']
        >>> put.read(None, ["PUT", "b", "1", "NEXT"]), put.read(None, ["PUT", "NEXT"])
        (({'key': 'b', 'value': 1}, 3), None)
    """
    known = arguments or {}
    values = {
        part: {str(c): c for kind in known[part].kinds for c in kind.choices} for part in pattern if part in known
    }

    def read(state: object, keys: Sequence[str]) -> tuple[dict[str, Any], int] | None:
        pairs = list(zip(pattern, keys, strict=False))
        if len(pairs) < len(pattern) or any(key not in values.get(part, (part,)) for part, key in pairs):
            return None
        return {part: values[part][key] for part, key in pairs if part in values}, len(pattern)

    def keys(state: object, given: Mapping[str, Any]) -> list[str]:
        return [str(given[part]) if part in values else part for part in pattern]

    return Call(name, doc, keys, read, known, uses=str(len(pattern)))


def without_arguments(name: str, doc: str, key: str) -> Call:
    """A call without arguments that presses one key."""
    return pattern_call(name, doc, (key,))
