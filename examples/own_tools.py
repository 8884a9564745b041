"""Your own tools: plain functions that an agent learns to choose, to call and to compose.

A quantity has a unit, so which tools are right depends on the problem: no fixed program solves a stage.
"""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modelnative as mn


@mn.tool
def celsius(f: int) -> int:
    """Fahrenheit to Celsius, rounded."""
    return round((f - 32) * 5 / 9)


@mn.tool
def from_kelvin(k: int) -> int:
    """Kelvin to Celsius, rounded."""
    return round(k - 273.15)


@mn.tool
def metres(feet: int) -> int:
    """Feet to metres, rounded."""
    return round(feet * 0.3048)


@mn.tool
def from_yards(yards: int) -> int:
    """Yards to metres, rounded."""
    return round(yards * 0.9144)


@mn.tool
def minus(a: int, b: int) -> int:
    """The difference."""
    return a - b


TO_METRIC: dict[str, Callable[[int], int]] = {"F": celsius, "K": from_kelvin, "ft": metres, "yd": from_yards}
KINDS = ("F", "K"), ("ft", "yd")


def answer(problem: dict[str, Any]) -> int:
    """The quantity in °C or m; if there are two, how much the first is more than the second."""
    first = TO_METRIC[problem["unit"]](problem["a"])
    return first - TO_METRIC[problem["unit2"]](problem["b"]) if "b" in problem else first


task = mn.ToolTask(
    tools=[celsius, from_kelvin, metres, from_yards, minus],
    problems={
        "convert": {"a": range(100, 1000, 5), "unit": ["F", "K", "ft", "yd"]},
        "compare": [
            {"a": a, "unit": unit, "b": b, "unit2": unit2}
            for units in KINDS
            for a, unit, b, unit2 in itertools.product(range(100, 1000, 33), units, range(100, 1000, 33), units)
        ],
    },
    target=answer,
)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        # Leave out `updates`, and it solves every problem; some seeds need smaller steps, see docs/howto/own-tools.md.
        # On the command line: modelnative train --task own_tools:task
        finished = mn.train(task, out=Path(folder) / "run", updates=60)
        print("success:", finished.evaluation.line())

        explanation = mn.explain(folder + "/run", stage="compare", problem="a=100 unit=F b=133 unit2=K")
        print("problem:", explanation.problem)
        print("wrote:  ", " ".join(row.token for row in explanation.rows))
        print("oracle: ", " ".join(explanation.oracle))
