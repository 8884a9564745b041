"""Tools and tasks that another process can import, unlike a function in a test."""

from __future__ import annotations

import os
import time

from modelnative import ToolTask, tool


@tool
def double(x: int) -> int:
    """Twice as much."""
    return 2 * x


def plain(x: int) -> int:
    return x + 1


@tool(seconds=0.5)
def stubborn(x: int) -> int:
    """Loops forever for 3, sleeps forever for 5."""
    while x == 3:
        pass
    if x == 5:
        time.sleep(3600)
    return x


@tool
def where(x: int) -> int:
    """The id of the process that it runs in; it also prints."""
    print("at work on", x)
    time.sleep(0.01)
    return os.getpid()


@tool
def deadly(x: int) -> int:
    """Ends its process for 1."""
    if x == 1:
        os._exit(3)
    time.sleep(0.01)
    return x


def make(count: int = 40) -> ToolTask:
    """A task with an option."""
    return ToolTask([double], {"x": range(count)}, lambda problem: 4 * problem["x"])


@tool
def mistaken(x: int) -> int:
    """Has a wrong name in it."""
    return rond(x)  # type: ignore[name-defined]  # noqa: F821


def broken() -> ToolTask:
    """No target can be reached, because of the mistake in the tool."""
    return ToolTask([mistaken], {"x": range(1, 61)}, lambda problem: -problem["x"])


def partly_broken() -> ToolTask:
    """Every target can be reached in spite of the mistake."""
    return ToolTask([double, mistaken], {"x": range(1, 61)}, lambda problem: 2 * problem["x"])


def nothing() -> int:
    return 3


TASK = make()


@tool
def length(text: str) -> int:
    """The number of characters."""
    return len(text)


MARKED = ToolTask(
    [length], {"text": ["[/INST]", "[bold]", ":smile:", "</p>", "x"]}, lambda problem: len(problem["text"])
)
