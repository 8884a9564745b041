"""Plain Python functions as tools: parameters and results are read from the annotations. Imports no torch.

A tool must be a pure function: equal arguments give equal results, without side effects. Each call is made once and
cached, possibly in another process and in any order.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar, overload

from modelnative.errors import UserError, in_words, shown
from modelnative.tasks.importing import module_name

Value: TypeAlias = int | float | bool | str
A = ParamSpec("A")
R = TypeVar("R")

# By the environments of bridges.
RESERVED = ("reset", "step", "state", "close", "get_reward", "answer", "begin", "press")
SECONDS = 1.0  # default time limit of a call
MAX_DIGITS = 12  # of a number that is an input, a target or a result
JSON_TYPES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
TOO_LONG = "returned a number with too many digits"
TYPES = "int, float, bool, str, or Literal with values of one of these types"
TYPES_OF_TENSORS = "int, float, bool or Literal, without strings (a tensor cannot hold them)"


@dataclass(frozen=True)
class Kind:
    """The values that a parameter accepts or a function returns.

    Attributes:
        type: int, float, bool or str.
        choices: the allowed values of a `Literal` and of bool; empty for any value of the type.

    Example:
        >>> Kind.of(Literal["C", "F"])
        Kind(type=<class 'str'>, choices=('C', 'F'))
        >>> Kind.of(int).convert(3.5)
        Traceback (most recent call last):
        TypeError: 3.5 is not int
    """

    type: type
    choices: tuple[Value, ...] = ()

    @classmethod
    def of(cls, annotation: Any) -> Kind | None:
        """Return the kind of an annotation, without its description; None if it is none of `TYPES`."""
        annotation = described(annotation)[0]
        if annotation is bool:
            return cls(bool, (False, True))
        if annotation in (int, float, str):
            return cls(annotation)
        if typing.get_origin(annotation) is Literal:
            choices = typing.get_args(annotation)
            kind = cls(type(choices[0]))
            if kind.type in JSON_TYPES and all(type(c) is kind.type and kind.takes(c) for c in choices):
                return cls(kind.type, choices)
        return None

    def convert(self, value: object) -> Value:
        """Return `value` as a plain value of this kind. Integers are accepted as floats, and NumPy scalars as numbers.

        Raises:
            TypeError: the value has another type, is not among the choices, or is no `plain_value`.
        """
        plain = plain_value(value)
        if self.type is float and type(plain) is int:
            plain = float(plain)
        if type(plain) is not self.type:
            raise TypeError(f"{shown(value)} is not {self.type.__name__}")
        if self.choices and plain not in self.choices:
            raise TypeError(f"{shown(value)} is none of {', '.join(map(repr, self.choices))}")
        return plain

    def takes(self, value: object) -> bool:
        """Whether `convert` accepts the value."""
        try:
            self.convert(value)
        except TypeError:
            return False
        return True

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        listed = {"enum": list(self.choices)} if self.choices and self.type is not bool else {}
        return {"type": JSON_TYPES[self.type], **listed}


class TooManyDigits(TypeError):
    """A number is too long to be shown, whatever `digits` of `ToolTask` is."""


def plain_value(value: object) -> Value:
    """Return `value` as an int, float, bool or str; it may be a scalar of NumPy or torch.

    Every value of a user or a tool passes here before it is converted, written or computed with.

    Raises:
        TooManyDigits: a number has more than `MAX_DIGITS` digits.
        TypeError: the value is none of these, or is not finite.
    """
    if not isinstance(value, (int, float, str)) and getattr(value, "shape", None) == ():
        value = value.item()  # type: ignore[attr-defined]  # scalars of NumPy and torch have `item`
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value!r} is not finite")
    if isinstance(value, (int, float)) and abs(value) >= 10**MAX_DIGITS:
        raise TooManyDigits(f"{shown(value)} has more than {MAX_DIGITS} digits")
    for kind in (bool, int, float, str):  # bool first, as it is a subclass of int
        if isinstance(value, kind):
            # Adding 0 turns −0.0 into 0.0, which looks the same and would be another value.
            return float(value) + 0.0 if isinstance(value, float) else kind(value)
    raise TypeError(f"{shown(value)} is not int, float, bool or str")


def described(annotation: Any) -> tuple[Any, str]:
    """Return an annotation without `Annotated` and `NewType`, and the description in it: the first string.

    Example:
        >>> described(Annotated[int, "degrees Fahrenheit"])
        (<class 'int'>, 'degrees Fahrenheit')
    """
    words = ""
    while True:
        if typing.get_origin(annotation) is Annotated:
            extra = (getattr(one, "description", None) or one for one in annotation.__metadata__)
            words = words or next((one for one in extra if isinstance(one, str)), "")
            annotation = annotation.__origin__
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        else:
            return annotation, words


def argument_docs(doc: str) -> dict[str, str]:
    r"""Return the descriptions in the section "Args" of a docstring in Google's style, by argument.

    Example:
        >>> argument_docs("Add.\n\nArgs:\n    a: one number,\n        not zero.\n    b (int): another.")
        {'a': 'one number, not zero.', 'b': 'another.'}
    """
    found: dict[str, str] = {}
    section, name, indent = False, "", 0
    for line in doc.splitlines():
        depth = len(line) - len(line.lstrip())
        if depth == 0 and line.strip():
            section = line.strip() in ("Args:", "Arguments:")
        elif section and line.strip():
            indent = indent or depth
            head = re.match(r"\*?(\w+)\s*(?:\([^)]*\))?:\s*(.*)", line.strip())
            if depth == indent and head:
                name = head[1]
                found[name] = head[2]
            elif name:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return found


class CallOutcome(NamedTuple):
    """The result of a call: a value, or None and the reason.

    An exception is a regular outcome of a tool; a `fault` is an outcome that indicates a mistake in the tool.
    """

    value: Value | None
    error: str = ""
    fault: bool = False


class Tool(Generic[A, R]):
    """A function that an agent can call. Calling the tool calls the function.

    Args:
        function: a pure function with an annotation for each parameter and for the result: int, float, bool, Literal
            or, for parameters, str. If it raises an exception, the agent sees an error and continues.
        seconds: time limit of a call. A call that exceeds it is an error, which is cached like any other outcome.
        batched: whether the function works on tensors. It is then called with an int64, float64 or bool tensor [n] for
            each parameter and returns such a tensor; the annotations are the types of one element.

    Attributes:
        name, doc: the name and docstring of the function.
        parameters: the kind of each parameter, by name.
        returns: the kind of the result.

    Raises:
        UserError: the function cannot be a tool; the message says what to change.
    """

    def __init__(self, function: Callable[A, R], *, seconds: float = SECONDS, batched: bool = False) -> None:
        given: object = function
        if not callable(given) or inspect.isclass(given):
            raise UserError(f"tool: {function!r} is not allowed; expected a function")
        functools.update_wrapper(self, function)
        self.function = function
        self.name = str(getattr(function, "__name__", ""))
        if not self.name.isidentifier():
            raise UserError(f"tool: {self.name or repr(function)} is not allowed; give it a name: def name(...): ...")
        if not seconds > 0:
            raise self._error(f"seconds: {seconds!r} is not allowed; expected more than 0")
        if self.name in RESERVED or self.name.startswith("_"):
            allowed = f"a name without a leading underscore that is none of {', '.join(RESERVED)}"
            raise UserError(f"tool: {self.name} is not allowed; expected {allowed}, which environments use")
        late = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        if any(is_late(function) for is_late in late):
            raise self._error("is async or a generator; expected a function that returns its result")
        self.seconds, self.batched = float(seconds), batched
        self.doc = inspect.getdoc(function) or ""
        try:
            self.signature = inspect.signature(function, eval_str=True)
        except (NameError, ValueError, TypeError) as error:
            raise self._error(f"its annotations cannot be read: {error}") from error
        self.parameters = {name: self._parameter(p) for name, p in self.signature.parameters.items()}
        if self.signature.return_annotation is str:
            allowed = "a Literal of the possible strings, such as Literal['a', 'b']"
            raise self._error(f"the result: str is not allowed; expected {allowed}")
        self.returns = self._kind("the result", self.signature.return_annotation, "-> int")
        if batched and not self.parameters:
            raise self._error("has no parameter; expected at least one for batched=True")

    def __call__(self, *args: A.args, **kwargs: A.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name}{self.signature}>"

    def attempt(self, arguments: Sequence[Value]) -> CallOutcome:
        """Make one call; exceptions are returned as outcomes. A batched tool is called with a batch of one."""
        if self.batched:
            return self.attempt_all([arguments])[0]
        try:
            return self._outcome(self.function(*arguments))  # type: ignore[arg-type,call-arg]
        except BaseException as error:  # noqa: BLE001  # no exception of a tool may end the training
            return CallOutcome(None, in_words(error))

    def attempt_all(self, calls: Sequence[Sequence[Value]]) -> list[CallOutcome]:
        """Make several calls of a batched tool at once; an exception is the outcome of all of them."""
        import torch  # not at the top: workers for scalar tools do not need torch

        dtypes = {int: torch.int64, float: torch.float64, bool: torch.bool}
        kinds = [kind.type for kind in self.parameters.values()]
        columns = [torch.tensor(c, dtype=dtypes[k]) for k, c in zip(kinds, zip(*calls, strict=True), strict=True)]
        try:
            result: Any = self.function(*columns)  # type: ignore[arg-type,call-arg]
            if isinstance(result, torch.Tensor) and result.shape == (len(calls),):
                return [self._outcome(value) for value in result.tolist()]
            shape = list(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
            outcome = CallOutcome(None, f"returned {shape}; expected a tensor [{len(calls)}]", fault=True)
        except BaseException as error:  # noqa: BLE001  # as above
            outcome = CallOutcome(None, in_words(error))
        return [outcome] * len(calls)

    @property
    def target(self) -> str | None:
        """`module:name` by which another process can import the tool; None if it cannot."""
        home, name = str(getattr(self.function, "__module__", None)), str(getattr(self.function, "__qualname__", ""))
        module = module_name(home)
        if module is None or not all(part.isidentifier() for part in name.split(".")):
            return None
        found: Any = sys.modules[home]
        for part in name.split("."):
            found = getattr(found, part, None)
        return f"{module}:{name}" if found is self or found is self.function else None

    def schema(self) -> dict[str, Any]:
        """Return the name, docstring and parameters in the format of OpenAI's function calling.

        Example:
            >>> def metres(feet: int) -> int:
            ...     "Feet to metres, rounded."
            ...     return round(feet * 0.3048)
            >>> tool(metres).schema()["function"]["parameters"]["properties"]
            {'feet': {'type': 'integer'}}
        """
        properties = {name: kind.schema() for name, kind in self.parameters.items()}
        for name, words in self.described.items():
            if words:
                properties[name]["description"] = words
        parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
        parameters["additionalProperties"] = False
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.doc, "parameters": parameters},
        }

    @property
    def described(self) -> dict[str, str]:
        """What each parameter is, from `Annotated` or the section "Args" of the docstring; empty if neither says."""
        documented = argument_docs(self.doc)
        parameters = self.signature.parameters.items()
        return {name: described(p.annotation)[1] or documented.get(name, "") for name, p in parameters}

    def _outcome(self, result: object) -> CallOutcome:
        try:
            return CallOutcome(self.returns.convert(result))
        except TooManyDigits:
            return CallOutcome(None, f"{TOO_LONG}: {shown(result)}")
        except TypeError as error:
            return CallOutcome(None, f"returned what its annotation does not allow: {error}", fault=True)

    def _error(self, words: str) -> UserError:
        return UserError(f"tool {self.name}: {words}")

    def _parameter(self, parameter: inspect.Parameter) -> Kind:
        what = f"parameter {parameter.name!r}"
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise self._error(f"{what} is not allowed; expected plain parameters of one argument each")
        if parameter.default is not parameter.empty:
            raise self._error(f"{what} has a default; expected none, as the agent chooses every argument")
        return self._kind(what, parameter.annotation, f"{parameter.name}: int")

    def _kind(self, what: str, annotation: Any, example: str) -> Kind:
        """Return the kind of a parameter or of the result."""
        if annotation is inspect.Signature.empty:
            raise self._error(f"{what} has no annotation; write its type, such as {example} (allowed: {TYPES})")
        kind = Kind.of(annotation)
        if kind is None or (self.batched and kind.type is str):
            allowed = TYPES_OF_TENSORS if self.batched else TYPES
            name = annotation.__name__ if isinstance(annotation, type) else shown(annotation)
            raise self._error(f"{what}: {name} is not allowed; expected {allowed}")
        return kind


@overload
def tool(function: Callable[A, R], /) -> Tool[A, R]: ...


@overload
def tool(*, seconds: float = ..., batched: bool = ...) -> Callable[[Callable[A, R]], Tool[A, R]]: ...


def tool(
    function: Callable[A, R] | None = None, /, *, seconds: float = SECONDS, batched: bool = False
) -> Tool[A, R] | Callable[[Callable[A, R]], Tool[A, R]]:
    """Make a function a tool: `@tool`, or `@tool(seconds=5.0)`; see `Tool`.

    Example:
        >>> @tool
        ... def celsius(f: int) -> int:
        ...     "Fahrenheit to Celsius, rounded."
        ...     return round((f - 32) * 5 / 9)
        >>> celsius, celsius(50)
        (<tool celsius(f: int) -> int>, 10)
    """
    if function is None:
        return functools.partial(Tool, seconds=seconds, batched=batched)
    return Tool(function, seconds=seconds, batched=batched)
