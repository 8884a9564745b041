"""What a function needs to be a tool, and what is read from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pytest
import toolbox
import torch

import modelnative as mn
from modelnative.tasks.tools.tool import Kind


def celsius(f: int) -> int:
    """Fahrenheit to Celsius, rounded."""
    return round((f - 32) * 5 / 9)


def test_a_tool_is_still_the_function() -> None:
    tool = mn.tool(celsius)
    assert tool(50) == tool(f=50) == 10
    assert (tool.name, tool.doc, tool.__name__, tool.__doc__) == (
        "celsius",
        celsius.__doc__,
        "celsius",
        celsius.__doc__,
    )
    assert str(tool.signature) == "(f: int) -> int" or "f: 'int'" in str(tool.signature)
    assert (tool.parameters, tool.returns) == ({"f": Kind(int)}, Kind(int))
    assert repr(tool).startswith("<tool celsius(")


def test_arguments_of_the_decorator() -> None:
    @mn.tool(seconds=5, batched=True)
    def twice(x: int) -> int:
        return 2 * x

    assert (twice.seconds, twice.batched) == (5.0, True)
    assert (mn.tool(celsius).seconds, mn.tool(celsius).batched) == (1.0, False)


def test_schema_is_that_of_a_function_call() -> None:
    @mn.tool
    def convert(x: float, unit: Literal["C", "F"], exact: bool, steps: Literal[1, 2]) -> float:
        """Convert.

        At length.
        """
        return x

    assert convert.schema() == {
        "type": "function",
        "function": {
            "name": "convert",
            "description": "Convert.\n\nAt length.",
            "parameters": {
                "type": "object",
                "properties": {
                    "x": {"type": "number"},
                    "unit": {"type": "string", "enum": ["C", "F"]},
                    "exact": {"type": "boolean"},
                    "steps": {"type": "integer", "enum": [1, 2]},
                },
                "required": ["x", "unit", "exact", "steps"],
                "additionalProperties": False,
            },
        },
    }


def no_parameter_type(x) -> int:  # type: ignore[no-untyped-def]
    return x


def no_result_type(x: int):  # type: ignore[no-untyped-def]
    return x


def any_string(x: int) -> str:
    return str(x)


def a_list(x: list[int]) -> int:
    return x[0]


def either(x: int | None) -> int:
    return x or 0


def mixed_choices(x: Literal[1, "one"]) -> int:
    return 1


def a_default(x: int, y: int = 3) -> int:
    return x + y


def many(*x: int) -> int:
    return sum(x)


def by_name(*, x: int) -> int:
    return x


def unknown(x: Nowhere) -> int:  # type: ignore[name-defined]  # noqa: F821
    return 0


async def later(x: int) -> int:
    return x


def one_by_one(x: int) -> Iterator[int]:
    yield x


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (
            no_parameter_type,
            {},
            "tool no_parameter_type: parameter 'x' has no annotation; write its type, such as x: int",
        ),
        (no_result_type, {}, "tool no_result_type: the result has no annotation; write its type, such as -> int"),
        (
            any_string,
            {},
            r"the result: str is not allowed; expected a Literal of the possible strings.*Literal\['a', 'b'\]",
        ),
        (
            a_list,
            {},
            r"tool a_list: parameter 'x': list\[int\] is not allowed; expected int, float, bool, str, or Literal",
        ),
        (either, {}, r"parameter 'x': int \| None is not allowed"),
        (mixed_choices, {}, "parameter 'x': typing.Literal.* is not allowed; .* of one of these types"),
        (a_default, {}, "parameter 'y' has a default"),
        (many, {}, "parameter 'x' is not allowed; expected plain parameters"),
        (by_name, {}, "parameter 'x' is not allowed; expected plain parameters"),
        (unknown, {}, "tool unknown: its annotations cannot be read: name 'Nowhere'"),
        (later, {}, "tool later: is async or a generator"),
        (one_by_one, {}, "tool one_by_one: is async or a generator"),
        (lambda x: x, {}, "tool: <lambda> is not allowed; give it a name"),
        (3, {}, "tool: 3 is not allowed; expected a function"),
        (int, {}, "expected a function"),
        (celsius, {"seconds": 0}, "tool celsius: seconds: 0 is not allowed; expected more than 0"),
    ],
)
def test_what_cannot_be_a_tool(function: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(mn.UserError, match=message):
        mn.tool(**options)(function) if options else mn.tool(function)


def test_tensors_hold_no_strings() -> None:
    def shout(word: Literal["a", "b"]) -> int:
        return 1

    def nothing() -> int:
        return 1

    with pytest.raises(mn.UserError, match=r"parameter 'word': .* without strings \(a tensor cannot hold them\)"):
        mn.tool(batched=True)(shout)
    with pytest.raises(mn.UserError, match="tool nothing: has no parameter"):
        mn.tool(batched=True)(nothing)


@pytest.mark.parametrize(
    ("annotation", "value", "kept"),
    [
        (int, 3, 3),
        (int, True, None),
        (int, 3.0, None),
        (int, np.int64(3), 3),
        (int, torch.tensor(3), 3),
        (float, 3, 3.0),
        (float, -0.0, 0.0),
        (float, np.float32(0.5), 0.5),
        (float, float("nan"), None),
        (float, float("inf"), None),
        (float, 10**400, None),
        (float, False, None),
        (bool, True, True),
        (bool, np.bool_(True), True),
        (bool, 1, None),
        (str, "a", "a"),
        (str, 1, None),
        (int, None, None),
        (int, [3], None),
        (int, np.array([3]), None),
        (Literal[1, 2], 2, 2),
        (Literal[1, 2], 3, None),
        (Literal[1, 2], True, None),
        (Literal["a"], "b", None),
    ],
)
def test_what_a_kind_accepts(annotation: Any, value: object, kept: object) -> None:
    kind = Kind.of(annotation)
    assert kind is not None
    if kept is None:
        with pytest.raises(TypeError):
            kind.convert(value)
    else:
        converted = kind.convert(value)
        assert (converted, type(converted), str(converted)) == (kept, type(kept), str(kept))


def test_where_a_tool_can_be_found() -> None:
    assert toolbox.double.target == "toolbox:double"
    assert mn.tool(toolbox.plain).target == "toolbox:plain"
    assert mn.tool(lambda_like()).target is None
    hidden = mn.tool(celsius)
    assert hidden.target == f"{__name__}:celsius", "the function stands there, if not the tool"


def lambda_like() -> Callable[..., int]:
    def inner(x: int) -> int:
        return x

    return inner
