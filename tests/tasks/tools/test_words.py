"""What a language model reads of a task made of tools."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

import modelnative as mn
from modelnative.errors import UserError
from modelnative.tasks.contract.episode import Episode


def convert(f: float, exact: Annotated[bool, "whether to round"]) -> float:
    """Fahrenheit to Celsius.

    Args:
        f: degrees Fahrenheit,
            not Kelvin.
        exact (bool): never read, because the annotation says it.

    Returns:
        degrees.
    """
    return (f - 32) * 5 / 9 if exact else round((f - 32) * 5 / 9)


def task(**arguments: Any) -> mn.ToolTask:
    problems = {"one": {"f": [50.5, 7.0, -3.25, 9.0]}, "two": {"f": [1.0, 2.0, 3.0], "kind": ["a", "b"]}}
    return mn.ToolTask([convert], problems, lambda p: convert(p["f"], True), **arguments)


def test_parameters_are_described_by_the_docstring_or_the_annotation() -> None:
    properties = mn.tool(convert).schema()["function"]["parameters"]["properties"]
    assert properties == {
        "f": {"type": "number", "description": "degrees Fahrenheit, not Kelvin."},
        "exact": {"type": "boolean", "description": "whether to round"},
    }
    schema = task().calls()[0].schema()["function"]
    assert schema["parameters"]["properties"] == properties
    assert schema["description"] == "Fahrenheit to Celsius."


@pytest.mark.parametrize("name", ["reset", "step", "state", "close", "get_reward", "answer", "begin", "press", "_x"])
def test_names_that_environments_use_are_refused(name: str) -> None:
    def function(x: int) -> int:
        return x

    function.__name__ = name
    with pytest.raises(UserError, match=rf"^tool: {name} is not allowed; expected a name without a leading underscore"):
        mn.tool(function)


def test_what_is_asked() -> None:
    asked = task(ask={"one": "Convert {f} degrees.", "two": "Convert {f:.1f}, {kind!r}."})
    assert asked.prompt(asked.parse(0, "f=50.5"), 0) == "Convert 50.5 degrees."
    assert asked.prompt(asked.parse(1, "f=1.0 kind=a"), 0) == "Convert 1.0, 'a'."
    assert task().prompt(task().parse(0, "f=50.5"), 0) == "one: f=50.5"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ("Convert {g}.", r"expected the inputs of stage 'one' in braces: f \('g'\)"),
        ("Convert it.", "expected every input of stage 'one' in braces, f too"),
        ("Convert {f}.", "expected every input of stage 'two' in braces, kind too"),
        ("Convert {.", "expected the inputs of stage 'one' in braces"),
        ({"one": "Convert {f}."}, "expected every stage, 'two' too"),
        (3, "expected a text, or one for each stage"),
    ],
)
def test_what_cannot_be_asked(ask: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        task(ask=ask)


def test_floats_are_given_back_as_they_are_shown() -> None:
    episode = Episode(task())
    episode.begin("one", problem="f=-3.25")
    assert episode.call("convert", {"f": -3.25, "exact": True}).text == "-19.58"
    assert "at hand are -3.25, -19.58" in episode.call("answer", {"value": 3.25}).text
    assert episode.call("answer", {"value": -19.58}).success
