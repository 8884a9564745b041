"""Tools and tasks that another process can import: a function within a test cannot be."""

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
    """Loops for ever on 3, sleeps for ever on 5."""
    while x == 3:
        pass
    if x == 5:
        time.sleep(3600)
    return x


@tool
def where(x: int) -> int:
    """The process that it runs in; it talks while it works."""
    print("at work on", x)
    time.sleep(0.01)
    return os.getpid()


@tool
def deadly(x: int) -> int:
    """Ends its process on 1."""
    if x == 1:
        os._exit(3)
    time.sleep(0.01)
    return x


def make(count: int = 40) -> ToolTask:
    """A task with a option."""
    return ToolTask([double], {"x": range(count)}, lambda problem: 4 * problem["x"])


def nothing() -> int:
    return 3


TASK = make()
