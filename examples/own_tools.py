"""Your own tools: plain functions that an agent learns to choose, to call and to compose.

A quantity has a unit, so which tools are right depends on the problem: no fixed program solves a stage.
"""

import sys
import tempfile
from pathlib import Path

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


TO_METRIC = {"F": celsius, "K": from_kelvin, "ft": metres, "yd": from_yards}


def answer(problem: dict) -> int:
    """The quantity in °C or m; if there are two, how much the first is more than the second."""
    first = TO_METRIC[problem["unit"]](problem["a"])
    return first - TO_METRIC[problem["unit2"]](problem["b"]) if "b" in problem else first


PAIRS = [(u, v) for kind in ("F K", "ft yd") for u in kind.split() for v in kind.split()]
task = mn.ToolTask(
    tools=[celsius, from_kelvin, metres, from_yards, minus],
    problems={
        "convert": {"a": range(100), "unit": ["F", "K", "ft", "yd"]},
        "compare": [
            {"a": a, "unit": u, "b": b, "unit2": v}
            for a in range(10, 90, 3)
            for b in range(10, 90, 3)
            for u, v in PAIRS
        ],
    },
    target=answer,
)

if __name__ == "__main__":
    updates = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    with tempfile.TemporaryDirectory() as folder:
        finished = mn.train(task, out=Path(folder) / "run", updates=updates)
        print("success:", finished.evaluation.line(), f"after {finished.updates} updates, {finished.seconds:.0f} s")
