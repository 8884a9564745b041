"""The worlds: one contract (`task.py`), one file a family. Importing this package does not import torch.

A task is named by its name in `TASKS`, by the name of an entry point of the group `modelnative.tasks`, or as
`package.module:name`: a subclass of `Task`, a function that returns a task, or a task.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from modelnative.errors import UserError, choose, in_words
from modelnative.tasks.importing import imported, module_name

if TYPE_CHECKING:
    from modelnative.tasks.contract.task import AnyTask

GROUP = "modelnative.tasks"
KINDS: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}  # of options
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Entry(NamedTuple):
    """A task before it is imported: `target` is `module:Class`, `summary` its one-line description."""

    target: str
    summary: str


TASKS: dict[str, Entry] = {
    "arithmetic": Entry(
        "modelnative.tasks.arithmetic.task:Arithmetic", "a pocket calculator: 111,000 problems in 3 stages"
    ),
    "expressions": Entry("modelnative.tasks.expressions.task:Expressions", "infix expressions on K memories, by trees"),
    "countdown": Entry(
        "modelnative.tasks.countdown.task:Countdown", "reach the target from 3 to 6 numbers, each used once"
    ),
    "hops": Entry(
        "modelnative.tasks.hops.task:Hops", "follow a hidden map h times through a tool, say where that ends"
    ),
    "recall": Entry("modelnative.tasks.recall.task:Recall", "type a cue again after 1 to 1,000 distractors"),
    "dictionary": Entry(
        "modelnative.tasks.dictionary.task:Dictionary", "pairs stream by, some are asked; a store on or off"
    ),
    "tutorial": Entry(
        "modelnative.tasks.tutorial.task:Tutorial", "the published tutorial's world and its published score"
    ),
}


def task_entries() -> dict[str, Entry]:
    """`TASKS` and the installed plug-ins, by name; a plug-in cannot replace a task of the library."""
    plugins = {e.name: Entry(e.value, f"plug-in {e.value}") for e in entry_points(group=GROUP)}
    return {**plugins, **TASKS}


def make_task(name: str, **options: Any) -> AnyTask:
    """The task of that name, with its options set.

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
    from modelnative.tasks.contract.task import Task

    maker = _maker(name)
    if isinstance(maker, Task):
        for option, value in options.items():
            raise UserError(
                f"option of task {name}: {option}={value!r} is not allowed; expected none: it names a task that "
                "is made already; to have options, make it in a function, and name that"
            )
        task: Any = maker
    else:
        _check_options(name, maker, options)
        try:
            task = maker(**options)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # the author of a task may raise what they like
            raise UserError(f"task: {name!r} cannot be made; {in_words(error)}") from error
    return require_task(task, f"{name!r} is not allowed; it returned ")


def require_task(task: object, before: str = "") -> AnyTask:
    """`task` if it is a task that can be used; else raise a `UserError` that says `before` what it is."""
    from modelnative.tasks.contract.task import Task, TaskSpec

    if not isinstance(task, Task):
        expected = f"a task: {task.__name__}()" if isinstance(task, type) else "a task"
        raise UserError(f"task: {before}{_kind(task)}{'' if before else ' is not allowed'}; expected {expected}")
    if not isinstance(getattr(task, "spec", None), TaskSpec):
        raise UserError(f"task: {type(task).__name__} has no spec; set self.spec = TaskSpec(...) in its __init__")
    return task


def option_parameters(name: str) -> dict[str, inspect.Parameter]:
    """What `make_task` may set of the task of that name; raises as it does.

    Example:
        >>> list(option_parameters("tutorial"))
        ['horizon']
    """
    maker = _maker(name)
    return {name: p for name, p in _parameters(maker).items() if p.kind in NAMED} if callable(maker) else {}


def task_name(task: AnyTask | Callable[..., Any]) -> str:
    """The name by which another process will find `task`: `module:attribute`.

    A run stores the name of its task and not the task, so that whoever resumes or loads it can make it again.

    Raises:
        UserError: it is no attribute of a module that can be imported; the message says what to do.
    """
    from modelnative.tasks.contract.task import Task

    kind = _kind(task)
    if not (isinstance(task, Task) or callable(task)):  # a class or function of which a task is made has a name, too
        raise UserError(f"task: {kind} is not allowed; expected a task or its name")
    for name, module in list(sys.modules.items()):
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is task and (found := module_name(name)) is not None:
                return f"{found}:{attribute}"
    raise UserError(
        f"task: this {kind} cannot be found again by name, and a run must be resumed and loaded by name; expected a "
        "task that stands at the top of a file, such as `task = ...` in mytools.py, or a name: "
        "'mytools:task', or 'mytools:make' for a function `make` that returns a task"
    )


def _check_options(name: str, maker: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raise a `UserError` for an option that is unknown, of another type or missing."""
    parameters = _parameters(maker)
    named = {name: p for name, p in parameters.items() if p.kind in NAMED}
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option, value in options.items():
        if any_name and option not in named:
            continue  # such as that of a superclass; whoever gets it judges it
        if not named:
            raise UserError(f"option of task {name}: {option}={value!r} is not allowed; this task has no options")
        choose(f"option of task {name}", option, named)
        kind = named[option].annotation
        # What is not a plain type (a Literal, say) the class itself checks.
        if kind in KINDS and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind is not bool)):
            raise UserError(f"{option}: {value!r} is not allowed; expected {kind.__name__}")
    for parameter in named.values():
        if parameter.name not in options and parameter.default is parameter.empty:
            raise UserError(
                f"option of task {name}: {parameter.name!r} is missing; it has no default: give it one, or set "
                f"it, as in --options {parameter.name}=VALUE"
            )


def _parameters(maker: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Its parameters, annotations evaluated if they can be (some can only by a type checker)."""
    try:
        return inspect.signature(maker, eval_str=True).parameters
    except (AttributeError, NameError, SyntaxError, TypeError):
        return inspect.signature(maker).parameters


def _maker(name: str) -> Callable[..., Any] | AnyTask:
    """What a task's name names: its class, a function that returns it, or itself."""
    from modelnative.tasks.contract.task import Task

    target = _target(name)
    try:
        found = imported(target)
    except UserError as error:
        raise UserError(f"task: {name!r} is not allowed; {error}") from error
    if isinstance(found, Task):
        return found
    is_class = isinstance(found, type)
    if is_class and issubclass(found, Task):
        if inspect.isabstract(found):
            missing = ", ".join(sorted(found.__abstractmethods__))
            raise UserError(f"task: {name!r} cannot be made; {found.__name__} lacks methods that a task has: {missing}")
        return found
    if _is_tool(found):
        raise UserError(f"task: {name!r} is not allowed; it is a tool; name a task that has it: ToolTask([...], ...)")
    if inspect.isroutine(found) or (callable(found) and not is_class):
        return found
    raise UserError(
        f"task: {name!r} is not allowed; expected {target} to be a subclass of Task, a function that returns a task, "
        f"or a task; it is {_kind(found)}"
    )


def _target(name: str) -> str:
    """`module:name` of a task that is named so, or by one word."""
    if not isinstance(name, str):
        raise UserError(f"task: {_kind(name)} is not allowed; expected its name")
    if ":" in name:
        return name
    entries = task_entries()
    module, _, attribute = name.removesuffix(".py").rpartition(".")
    if name not in entries and name.endswith(".py"):
        raise UserError(f"task: {name!r} is not allowed; say which task of the file: {attribute}:NAME")
    if name not in entries and module:
        raise UserError(f"task: {name!r} is not allowed; a colon stands before the last name: {module}:{attribute}")
    try:
        return entries[choose("task", name, entries)].target
    except UserError as error:
        raise UserError(f"{error}; or your own as module:name, such as mytasks:MyTask of mytasks.py") from error


def _is_tool(found: object) -> bool:
    from modelnative.tasks.tools.tool import Tool

    return isinstance(found, Tool)


def _kind(value: object) -> str:
    """What a value is, to someone who took it for a task."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else type(value).__name__
