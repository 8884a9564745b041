"""The worlds: one contract (`task.py`), one file a family. Importing this package does not import torch.

A task is named by its name in `TASKS`, by the name of an entry point of the group `modelnative.tasks`, or as
`package.module:Class`.
"""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from modelnative.errors import UserError, choose

if TYPE_CHECKING:
    from modelnative.tasks.task import AnyTask

GROUP = "modelnative.tasks"
KINDS: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}  # of options


class Entry(NamedTuple):
    """A task before it is imported: `target` is `module:Class`, `summary` its one-line description."""

    target: str
    summary: str


TASKS: dict[str, Entry] = {
    "arithmetic": Entry("modelnative.tasks.arithmetic:Arithmetic", "a pocket calculator: 111,000 problems in 3 stages"),
    "expressions": Entry("modelnative.tasks.expressions:Expressions", "infix expressions on K memories, by trees"),
    "countdown": Entry("modelnative.tasks.countdown:Countdown", "reach the target from 3 to 6 numbers, each used once"),
    "hops": Entry("modelnative.tasks.hops:Hops", "follow a hidden map h times through a tool, say where that ends"),
    "recall": Entry("modelnative.tasks.recall:Recall", "type a cue again after 1 to 1,000 distractors"),
    "dictionary": Entry(
        "modelnative.tasks.dictionary:Dictionary", "pairs stream by, some are asked; a store on or off"
    ),
    "tutorial": Entry("modelnative.tasks.tutorial:Tutorial", "the published tutorial's world and its published score"),
}


def task_entries() -> dict[str, Entry]:
    """`TASKS` and the installed plug-ins, by name; a plug-in cannot replace a task of the library."""
    plugins = {e.name: Entry(e.value, f"plug-in {e.value}") for e in entry_points(group=GROUP)}
    return {**plugins, **TASKS}


def make_task(name: str, **options: Any) -> AnyTask:
    """The task of that name, with its dials set.

    Args:
        name: a name of `task_entries()`, or `package.module:Class`.
        options: the arguments of the task's class.

    Raises:
        UserError: an unknown task or option, or one whose value is not allowed.

    Example:
        >>> make_task("arithmetic", feedback="none").spec.feedback_width
        0
        >>> make_task("arithmetic", fedback="none")
        Traceback (most recent call last):
        modelnative.errors.UserError: option of task arithmetic: unknown value 'fedback'; did you mean 'feedback'? \
Allowed: feedback, reward, horizon, gamma
    """
    entries = task_entries()
    target = name if ":" in name else entries[choose("task", name, entries)].target
    task_class = _load(name, target)
    parameters = inspect.signature(task_class, eval_str=True).parameters
    for option, value in options.items():
        choose(f"option of task {name}", option, parameters)
        kind = parameters[option].annotation
        # What is not a plain type (a Literal, say) the class itself checks.
        if kind in KINDS and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind is not bool)):
            raise UserError(f"{option}: {value!r} is not allowed; expected {kind.__name__}")
    return task_class(**options)


def _load(name: str, target: str) -> type[AnyTask]:
    """The class that `module:Class` names."""
    from modelnative.tasks.task import Task

    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"task: {name!r} is not allowed; cannot import {target}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserError(f"task: {name!r} is not allowed; expected {target} to be a subclass of Task")
    return found
