"""The worlds: one contract (`task.py`), one file a family. Importing this package does not import torch.

A task is named by its name in `TASKS`, by the name of an entry point of the group `modelnative.tasks`, or as
`package.module:name`: a subclass of `Task`, a function that returns a task, or a task.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import operator
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from modelnative.errors import UserError, choose

if TYPE_CHECKING:
    from modelnative.tasks.task import AnyTask

GROUP = "modelnative.tasks"
KINDS: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}  # of options
REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


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
        name: a name of `task_entries()`, or `package.module:name`.
        options: the arguments of the task's class or function. A task that is made already has none.

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
    from modelnative.tasks.task import Task

    maker = _maker(name)
    if isinstance(maker, Task):
        for option, value in options.items():
            raise UserError(
                f"option of task {name}: {option}={value!r} is not allowed; expected none: it names a task that "
                "is made already; to have dials, make it in a function, and name that"
            )
        return maker
    parameters = inspect.signature(maker, eval_str=True).parameters
    for option, value in options.items():
        choose(f"option of task {name}", option, parameters)
        kind = parameters[option].annotation
        # What is not a plain type (a Literal, say) the class itself checks.
        if kind in KINDS and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind is not bool)):
            raise UserError(f"{option}: {value!r} is not allowed; expected {kind.__name__}")
    for parameter in parameters.values():
        if parameter.name not in options and parameter.default is parameter.empty and parameter.kind not in REST:
            raise UserError(f"option of task {name}: {parameter.name!r} is missing; it has no default")
    task = maker(**options)
    if not isinstance(task, Task):
        raise UserError(f"task: {name!r} is not allowed; it returned {type(task).__name__}; expected a task")
    return task


def dials(name: str) -> dict[str, inspect.Parameter]:
    """What `make_task` may set of the task of that name; raises as it does.

    Example:
        >>> list(dials("tutorial"))
        ['horizon']
    """
    maker = _maker(name)
    return dict(inspect.signature(maker).parameters) if callable(maker) else {}


def task_name(task: AnyTask) -> str:
    """The name by which another process will find `task`: `module:attribute`.

    A run stores the name of its task and not the task, so that whoever resumes or loads it can make it again.

    Raises:
        UserError: it is no attribute of a module that can be imported; the message says what to do.
    """
    kind = type(task).__name__
    for name, module in list(sys.modules.items()):
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is task and (found := module_name(name)) is not None:
                return f"{found}:{attribute}"
    raise UserError(
        f"task: this {kind} cannot be found again by name, and a run must be resumed and loaded by name; expected a "
        "task that stands at the top of a file, such as `task = ...` in mytools.py, or a name: "
        "'mytools:task', or 'mytools:make' for a function `make` that returns a task"
    )


def module_name(module: str) -> str | None:
    """The name by which another process can import a module that this one has; None if it cannot (a notebook, say).

    Only the script that this process was started with has another one: the name of its file.

    Example:
        >>> module_name("modelnative.tasks")
        'modelnative.tasks'
    """
    if module != "__main__":
        return module if module in sys.modules else None
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # python -m package.module
        return str(main.__spec__.name)
    path = getattr(main, "__file__", None)
    if path is None:
        return None
    name = os.path.splitext(os.path.basename(path))[0]
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not os.path.samefile(spec.origin, path):
        return None
    return name


def imported(target: str) -> Any:
    """What `module:name` names. The module is looked for in the working directory, too, after all other places.

    Raises:
        UserError: there is no such module, or no such name in it.
    """
    module, _, attribute = target.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # the command is not in the folder that it is called in, as a script is
    try:
        with _importing(target):
            return operator.attrgetter(attribute)(importlib.import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot import {target}: {error}") from error


def require_not_importing() -> None:
    """Raise a `UserError` while a module is imported to find a task or a tool: what trains then would not end."""
    if _under_way:
        raise UserError(
            f"a training stands at the top of the module that is imported to find {_under_way[-1]}; "
            "put it under: if __name__ == '__main__':"
        )


_under_way: list[str] = []  # what modules are imported for now


@contextmanager
def _importing(target: str) -> Iterator[None]:
    _under_way.append(target)
    try:
        yield
    finally:
        _under_way.pop()


def _maker(name: str) -> Callable[..., Any] | AnyTask:
    """What a task's name names: its class, a function that returns it, or itself."""
    from modelnative.tasks.task import Task

    entries = task_entries()
    target = name if ":" in name else entries[choose("task", name, entries)].target
    try:
        found = imported(target)
    except UserError as error:
        raise UserError(f"task: {name!r} is not allowed; {error}") from error
    is_class = isinstance(found, type)
    if isinstance(found, Task) or (is_class and issubclass(found, Task)) or (callable(found) and not is_class):
        return found
    raise UserError(
        f"task: {name!r} is not allowed; expected {target} to be a subclass of Task, a function that returns a task, "
        "or a task"
    )
