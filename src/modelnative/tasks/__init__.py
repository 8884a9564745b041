"""The tasks: the contract, one package for each family, and tasks made of tools. Importing it does not import torch.

A task has a name in `TASKS`, the name of an entry point in the group `modelnative.tasks`, a name of the form
`package.module:name` for a subclass of `Task`, a function that returns a task, or a task; or a name in another library,
such as `gymnasium:CartPole-v1`, or the names of several tasks joined by `+` (`libraries`).
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple, get_origin

from modelnative.errors import UserError, choose, in_words, shown
from modelnative.tasks.importing import imported, maker_of, module_name, script_path

if TYPE_CHECKING:
    from modelnative.tasks.contract.task import AnyTask

GROUP = "modelnative.tasks"
KINDS: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}  # types of options
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Entry(NamedTuple):
    """A task that is not imported yet: `target` is `module:Class`, `summary` a description in one line."""

    target: str
    summary: str


SUMMARIES = {
    "arithmetic": "a pocket calculator: 111,000 problems in 3 stages",
    "expressions": "evaluate infix expressions with K memory cells",
    "countdown": "reach the target from 3 to 6 numbers, each used once",
    "hops": "follow a hidden map for h hops through a tool",
    "recall": "type a cue again after 1 to 1,000 distractors",
    "dictionary": "remember pairs and answer queries, with or without a store",
    "tutorial": "the environment and score of the published tutorial",
}
TASKS = {
    name: Entry(f"modelnative.tasks.{name}.task:{name.capitalize()}", summary) for name, summary in SUMMARIES.items()
}


def task_entries() -> dict[str, Entry]:
    """Return `TASKS` and the installed plug-ins, by name. A plug-in cannot replace a task of the library."""
    plugins = {e.name: Entry(e.value, f"plug-in {e.value}") for e in entry_points(group=GROUP)}
    return {**plugins, **TASKS}


def make_task(name: str, /, **options: Any) -> AnyTask:
    """Make a task by its name.

    Args:
        name: a name of `task_entries()`, or `package.module:name`.
        options: the arguments of the task's class or function; none if the name refers to a task object.

    Raises:
        UserError: the task or an option is unknown, or the value of an option is not allowed.

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
                f"option of task {name}: {option}={shown(value)} is not allowed; expected no options for a "
                "task object; name a function with these parameters that returns the task"
            )
        task: Any = maker
    else:
        _check_options(name, maker, options)
        try:
            task = maker(**options)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # the code of a task may raise any exception
            raise UserError(f"task: {name!r} cannot be made; {in_words(error)}") from error
    return require_task(task, f"{name!r} is not allowed; it returned ")


def require_task(task: object, before: str = "") -> AnyTask:
    """Return `task` if it is a task with a spec; otherwise raise a `UserError` that contains `before`."""
    from modelnative.tasks.contract.task import Task, TaskSpec, hidden_methods

    if not isinstance(task, Task):
        expected = f"a task: {task.__name__}()" if isinstance(task, type) else "a task"
        raise UserError(f"task: {before}{_kind(task)}{'' if before else ' is not allowed'}; expected {expected}")
    if not isinstance(getattr(task, "spec", None), TaskSpec):
        raise UserError(f"task: {type(task).__name__} has no spec; set self.spec = TaskSpec(...) in its __init__")
    if hidden := hidden_methods(task):
        raise UserError(
            f"task: {type(task).__name__}.{hidden[0]} is not allowed; it hides the method Task.{hidden[0]}: expected "
            "another name for the attribute"
        )
    return task


def option_parameters(name: str) -> dict[str, inspect.Parameter]:
    """Return the options of a task by name; raises like `make_task`.

    Example:
        >>> list(option_parameters("tutorial"))
        ['horizon']
    """
    maker = _maker(name)
    return {name: p for name, p in _signature(maker).parameters.items() if p.kind in NAMED} if callable(maker) else {}


def task_name(task: AnyTask | Callable[..., Any]) -> str:
    """Return the name by which another process finds `task`: `module:attribute`.

    A run stores the name of its task, by which the task is made again when the run is resumed or loaded. The name of a
    task in a notebook is `__main__:attribute`, which only the same session finds.

    Raises:
        UserError: the task is not an attribute of a module that can be imported.
    """
    from modelnative.tasks.contract.task import Task

    kind = _kind(task)
    if not (isinstance(task, Task) or callable(task)):  # classes and functions that make a task have names too
        raise UserError(f"task: {kind} is not allowed; expected a task or its name")
    places = [
        (name, attribute)
        for name, module in list(sys.modules.items())
        for attribute, value in list(getattr(module, "__dict__", {}).items())
        if value is task
    ]
    for name, attribute in places:
        if (found := module_name(name)) is not None:
            return f"{found}:{attribute}"
    for name, attribute in places:
        if name == "__main__" and script_path() is None:
            return f"{name}:{attribute}"
    if places and (file := getattr(sys.modules[places[0][0]], "__file__", None)):
        raise UserError(
            f"task: {places[0][1]!r} in {file} cannot be found again by the name of its module, which a run needs to "
            "be resumed and loaded; expected a file in the working directory or on Python's path, with a name that no "
            "other module has"
        )
    raise UserError(
        f"task: this {kind} cannot be found again by name, which a run needs to be resumed and loaded; expected a task "
        "at the top level of a file, such as `task = ...` in mytools.py, or a name: "
        "'mytools:task', or 'mytools:make' for a function `make` that returns a task"
    )


def _check_options(name: str, maker: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raise a `UserError` for an option that is unknown, has another type or is missing."""
    parameters = _signature(maker).parameters
    named = {name: p for name, p in parameters.items() if p.kind in NAMED}
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option, value in options.items():
        if any_name and option not in named:
            continue  # passed on, for example to a superclass, which checks it
        if not named:
            raise UserError(f"option of task {name}: {option}={shown(value)} is not allowed; this task has no options")
        choose(f"option of task {name}", option, named)
        kind = named[option].annotation
        # Other annotations, such as Literal, are checked by the class itself.
        if kind in KINDS and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind is not bool)):
            raise UserError(f"{option}: {shown(value)} is not allowed; expected {kind.__name__}")
    for parameter in named.values():
        if parameter.name not in options and parameter.default is parameter.empty:
            raise UserError(
                f"option of task {name}: {parameter.name!r} is missing; it has no default: give it one, or set "
                f"it, as in --options {parameter.name}=VALUE"
            )


def _signature(maker: Callable[..., Any]) -> inspect.Signature:
    """Return the signature, with evaluated annotations unless that fails."""
    try:
        return inspect.signature(maker, eval_str=True)
    except (AttributeError, NameError, SyntaxError, TypeError):
        return inspect.signature(maker)


def _maker(name: str) -> Callable[..., Any] | AnyTask:
    """Return what the name of a task refers to: a class, a function that returns a task, or a task."""
    from modelnative.tasks.contract.task import Task

    if maker := maker_of(name):
        return functools.partial(imported(maker[0]), maker[1])
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
            raise UserError(
                f"task: {name!r} cannot be made; {found.__name__} lacks required methods of Task: {missing}"
            )
        return found
    if _is_tool(found):
        raise UserError(
            f"task: {name!r} is not allowed; it is a tool; expected a task with this tool: ToolTask([...], ...)"
        )
    if not is_class and callable(found):
        if _makes_task(found):
            return found
        raise UserError(
            f"task: {name!r} is not allowed; expected a function that says that it returns a task: annotate it, as in "
            f"def {target.rpartition(':')[2]}(...) -> Task:"
        )
    raise UserError(
        f"task: {name!r} is not allowed; expected {target} to be a subclass of Task, a function that returns a task, "
        f"or a task; it is {_kind(found)}"
    )


def _target(name: str) -> str:
    """Return the `module:name` of a task's name."""
    if not isinstance(name, str):
        raise UserError(f"task: {_kind(name)} is not allowed; expected its name")
    if ":" in name:
        return name
    entries = task_entries()
    module, _, attribute = name.removesuffix(".py").rpartition(".")
    if name not in entries and name.endswith(".py"):
        raise UserError(f"task: {name!r} is not allowed; expected the name of a task in the file: {attribute}:NAME")
    if name not in entries and module:
        raise UserError(f"task: {name!r} is not allowed; expected a colon before the last name: {module}:{attribute}")
    try:
        return entries[choose("task", name, entries)].target
    except UserError as error:
        raise UserError(f"{error}; or your own as module:name, such as mytasks:MyTask of mytasks.py") from error


def _makes_task(function: Callable[..., Any]) -> bool:
    """Whether the annotation of a function says that it returns a task. It is judged before any call.

    The functions of this library do not count: their arguments would come from a file.
    """
    from modelnative.tasks.contract.task import Task

    function = function.func if isinstance(function, functools.partial) else function
    if isinstance(function, type):
        return issubclass(function, Task)
    if str(getattr(function, "__module__", "")).partition(".")[0] == "modelnative":
        return False
    try:
        made = _signature(function).return_annotation
    except (TypeError, ValueError):  # a built-in function
        return False
    if isinstance(made, str):  # it cannot be evaluated, because of another annotation or an import for a type checker
        made = made.partition("[")[0].rpartition(".")[2]
        if made in ("Task", "AnyTask", "ToolTask"):
            return True
        made = getattr(function, "__globals__", {}).get(made)
    made = get_origin(made) or made
    return isinstance(made, type) and issubclass(made, Task)


def _is_tool(found: object) -> bool:
    from modelnative.tasks.tools.tool import Tool

    return isinstance(found, Tool)


def _kind(value: object) -> str:
    """Describe a value that is not a task."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else type(value).__name__
