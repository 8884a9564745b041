"""Plain Python functions as tools: what they take and give is read from their annotations. Free of torch.

A tool is pure: it gives the same for the same arguments, and changes nothing. Each call is made once and remembered,
some of them in other processes, and in an order that nobody should count on.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar, overload

from modelnative.errors import UserError
from modelnative.tasks.importing import module_name

Value: TypeAlias = int | float | bool | str
A = ParamSpec("A")
R = TypeVar("R")

SECONDS = 1.0  # that a call may take, unless its tool says otherwise
JSON_TYPES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
TYPES = "int, float, bool, str, or Literal with values of one of these types"


@dataclass(frozen=True)
class Kind:
    """The values that a parameter takes or a function returns.

    Attributes:
        type: int, float, bool or str.
        choices: the only values, of a `Literal` and of bool; empty where there are too many to list.

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
        """From an annotation; None if it is none of `TYPES`."""
        if annotation is bool:
            return cls(bool, (False, True))
        if annotation in (int, float, str):
            return cls(annotation)
        if typing.get_origin(annotation) is Literal:
            choices = typing.get_args(annotation)
            if len({type(choice) for choice in choices}) == 1 and type(choices[0]) in JSON_TYPES:
                return cls(type(choices[0]), choices)
        return None

    def convert(self, value: object) -> Value:
        """`value` as a plain value of this kind: a whole number is a float, too, and numpy's numbers are numbers.

        Raises:
            TypeError: it is of another type, not among the choices, or not finite.
        """
        plain = plain_value(value)
        if self.type is float and type(plain) is int and abs(plain) < 2**53:
            plain = float(plain)
        if type(plain) is not self.type:
            raise TypeError(f"{value!r} is not {self.type.__name__}")
        if isinstance(plain, float) and not math.isfinite(plain):
            raise TypeError(f"{value!r} is not finite")
        if self.choices and plain not in self.choices:
            raise TypeError(f"{value!r} is none of {', '.join(map(repr, self.choices))}")
        return plain

    def takes(self, value: Value) -> bool:
        """Whether `convert` accepts it."""
        try:
            self.convert(value)
        except TypeError:
            return False
        return True

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        listed = {"enum": list(self.choices)} if self.choices and self.type is not bool else {}
        return {"type": JSON_TYPES[self.type], **listed}


def plain_value(value: object) -> Value:
    """An int, float, bool or str that `value` is or holds (a number of numpy, say).

    Raises:
        TypeError: it is none of these.
    """
    if not isinstance(value, (int, float, str)) and getattr(value, "shape", None) == ():
        value = value.item()  # type: ignore[attr-defined]  # numpy's and torch's numbers have it
    for kind in (bool, int, float, str):  # bool is a kind of int
        if isinstance(value, kind):
            # Adding 0 makes 0.0 of −0.0, which looks the same and would be another value.
            return float(value) + 0.0 if isinstance(value, float) else kind(value)
    raise TypeError(f"{value!r} is not int, float, bool or str")


class Outcome(NamedTuple):
    """What came of a call: a value, or None and why there is none.

    A tool may raise as it likes, to say no; only what looks like a mistake is a `fault`.
    """

    value: Value | None
    error: str = ""
    fault: bool = False


class Tool(Generic[A, R]):
    """A function with what an agent must know to call it. Calling the tool calls the function.

    Args:
        function: pure, with an annotation for each parameter and for what it returns: int, float, bool, str (which
            only parameters may have) or Literal. If it raises, the agent sees an error, and goes on.
        seconds: that a call may take; a call that takes longer is an error too, for good, so be generous.
        batched: it is written over tensors. Then it is called with many calls at a time, an int64, float64 or bool
            tensor [n] for each parameter, and returns such a tensor; annotations say what one element is.

    Attributes:
        name, doc: of the function.
        parameters: the kind of each, by name.
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
            raise UserError(f"tool {self.name}: seconds: {seconds!r} is not allowed; expected more than 0")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise UserError(f"tool {self.name}: is async or a generator; expected a function that returns its result")
        self.seconds, self.batched = float(seconds), batched
        self.doc = inspect.getdoc(function) or ""
        try:
            self.signature = inspect.signature(function, eval_str=True)
        except (NameError, ValueError, TypeError) as error:
            raise UserError(f"tool {self.name}: its annotations cannot be read: {error}") from error
        self.parameters = {name: self._parameter(p) for name, p in self.signature.parameters.items()}
        self.returns = self._returned()
        if batched and not self.parameters:
            raise UserError(f"tool {self.name}: has no parameter, so there is nothing to call it with in a batch")

    def __call__(self, *args: A.args, **kwargs: A.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name}{self.signature}>"

    def attempt(self, arguments: Sequence[Value]) -> Outcome:
        """Make one call, whatever comes of it. Of a batched tool, too: as a batch of one."""
        if self.batched:
            return self.attempt_all([arguments])[0]
        try:
            result = self.function(*arguments)  # type: ignore[arg-type,call-arg]
        except BaseException as error:  # noqa: BLE001  # a tool may raise what it likes; it must not end the training
            return Outcome(None, f"{type(error).__name__}: {error}")
        return self._judged(result)

    def attempt_all(self, calls: Sequence[Sequence[Value]]) -> list[Outcome]:
        """Make several calls of a batched tool at once; if it raises, that is the outcome of all."""
        import torch  # here, because a process that only calls scalar tools can do without it

        dtypes = {int: torch.int64, float: torch.float64, bool: torch.bool}
        kinds = [kind.type for kind in self.parameters.values()]
        columns = [torch.tensor(c, dtype=dtypes[k]) for k, c in zip(kinds, zip(*calls, strict=True), strict=True)]
        try:
            result: Any = self.function(*columns)  # type: ignore[arg-type,call-arg]
        except BaseException as error:  # noqa: BLE001  # as above
            return [Outcome(None, f"{type(error).__name__}: {error}")] * len(calls)
        if not isinstance(result, torch.Tensor) or result.shape != (len(calls),):
            shape = list(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
            return [Outcome(None, f"returned {shape}; expected a tensor [{len(calls)}]", fault=True)] * len(calls)
        return [self._judged(value) for value in result.tolist()]

    @property
    def target(self) -> str | None:
        """`module:name` by which another process can import it; None where it cannot."""
        home, name = str(getattr(self.function, "__module__", None)), str(getattr(self.function, "__qualname__", ""))
        module = module_name(home)
        if module is None or not all(part.isidentifier() for part in name.split(".")):
            return None
        found: Any = sys.modules[home]
        for part in name.split("."):
            found = getattr(found, part, None)
        return f"{module}:{name}" if found is self or found is self.function else None

    def schema(self) -> dict[str, Any]:
        """Its name, doc and parameters as a language model's API reads them (OpenAI's function calling).

        Example:
            >>> def metres(feet: int) -> int:
            ...     "Feet to metres, rounded."
            ...     return round(feet * 0.3048)
            >>> tool(metres).schema()["function"]["parameters"]["properties"]
            {'feet': {'type': 'integer'}}
        """
        properties = {name: kind.schema() for name, kind in self.parameters.items()}
        parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
        parameters["additionalProperties"] = False
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.doc, "parameters": parameters},
        }

    def _judged(self, result: object) -> Outcome:
        try:
            return Outcome(self.returns.convert(result))
        except TypeError as error:
            return Outcome(None, f"returned what it should not: {error}", fault=True)

    def _parameter(self, parameter: inspect.Parameter) -> Kind:
        name, annotation = parameter.name, parameter.annotation
        where = f"tool {self.name}: parameter {name!r}"
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise UserError(f"{where} is not allowed; expected plain parameters, which take one argument each")
        if parameter.default is not parameter.empty:
            raise UserError(f"{where} has a default, but an agent chooses every argument; remove the default")
        if annotation is parameter.empty:
            raise UserError(f"{where} has no annotation; write its type, such as {name}: int (allowed: {TYPES})")
        kind = Kind.of(annotation)
        if kind is None or (self.batched and kind.type is str):
            raise UserError(f"{where}: {_said(annotation)} is not allowed; expected {self._types()}")
        return kind

    def _returned(self) -> Kind:
        annotation = self.signature.return_annotation
        where = f"tool {self.name}: what it returns"
        if annotation is inspect.Signature.empty:
            raise UserError(f"{where} has no annotation; write its type, such as -> int (allowed: {TYPES})")
        if annotation is str:
            raise UserError(
                f"{where}: str is not allowed; list the strings, each of which is a token: Literal['a', 'b']"
            )
        kind = Kind.of(annotation)
        if kind is None or (self.batched and kind.type is str):
            raise UserError(f"{where}: {_said(annotation)} is not allowed; expected {self._types()}")
        return kind

    def _types(self) -> str:
        return "int, float, bool or Literal, without strings, which no tensor holds" if self.batched else TYPES


def _said(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


@overload
def tool(function: Callable[A, R], /) -> Tool[A, R]: ...


@overload
def tool(*, seconds: float = ..., batched: bool = ...) -> Callable[[Callable[A, R]], Tool[A, R]]: ...


def tool(
    function: Callable[A, R] | None = None, /, *, seconds: float = SECONDS, batched: bool = False
) -> Tool[A, R] | Callable[[Callable[A, R]], Tool[A, R]]:
    """Make a tool of a function: `@tool`, or `@tool(seconds=5.0)`; see `Tool`.

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
