"""Import an object by its name `module:name`, with errors of one line that say what to do.

A name that the user gives is imported. A name in a file (a run, a sweep, a configuration) is imported only from a
module that the user trusts, because importing runs code, and the file may be somebody else's: see `require_trusted`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import operator
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from modelnative.errors import UserError, in_words

# Of a library, what makes its tasks: called with the rest of the name and the options.
LIBRARIES = {"gymnasium": "modelnative.tasks.gymnasium.task:GymnasiumTask"}
MIXTURE = "modelnative.tasks.mixture.task:NamedMixture"  # called with the whole name and the options
SHOWN = 10  # names in a message
INTERACTIVE = (
    "it was made in a notebook or an interactive session; put it in a file, and train with its name from there"
)


def child_environment(threads: int) -> dict[str, str]:
    """The environment of a child process of `threads` CPU threads, which can import what this process can.

    The child belongs to no group, even if a launcher such as torchrun has started this process in one.
    """
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)  # such as a task next to the user's script
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**alone, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)}


def trust(*modules: str) -> None:
    """Let the names in files refer to these modules, for the rest of the process.

    The environment variable `MODELNATIVE_TRUST` does the same for all processes; it separates modules by commas.

    Args:
        modules: names of modules, such as `mytasks`, or of objects in them, such as `mytasks:MyTask`.
    """
    _trusted.update(module_of(name) or name for name in modules)


def require_trusted(file: str | Path, fields: Mapping[str, Any]) -> None:
    """Raise a `UserError` unless the names in a file may be imported.

    Registered names may, and `module:name` of this library, of a module that is imported already, and of one that the
    user trusts (`trust`).

    Args:
        file: where the fields are.
        fields: of a training, or a list of values for each of them; those that are no names are ignored.
    """
    trusted = {*_trusted, *os.environ.get(TRUST, "").split(","), module_name("__main__"), *sys.modules}
    for field, name, module in _of_others(fields):
        if module not in trusted:
            raise UserError(
                f"{field}: {name!r} in {str(file)!r} would run the code of the module {module!r}; if you trust it, "
                f"add --trust {module} (in Python: import it first)"
            )


def trust_flags(fields: Iterable[Mapping[str, Any]]) -> str:
    """The flags, each after a space, by which a new process trusts the names in fields that this one has judged.

    Args:
        fields: of one or several trainings, as in `require_trusted`.

    Example:
        >>> trust_flags([{"task": "mytasks:MyTask", "core": "gru"}])
        ' --trust mytasks'
    """
    modules = dict.fromkeys(module for each in fields for _, _, module in _of_others(each))
    return "".join(f" --trust {shlex.quote(module)}" for module in modules if module != "__main__")


def _of_others(fields: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The names in fields that are neither registered nor of this library: field, name and module."""
    for field in NAMES:
        values = fields.get(field)
        for name in values if isinstance(values, list) else [values]:
            text = name if isinstance(name, str) else ""
            module = module_of(text)
            ours = module.startswith("modelnative.") and "__main__" not in module
            if module and not ours:
                yield field, text, module


NAMES = ("task", "core", "algorithm", "curriculum")  # the fields whose values are names
TRUST = "MODELNATIVE_TRUST"
_trusted: set[str] = set()


def imported(target: str) -> Any:
    """Import `module:name`. The working directory is searched too, after the import path.

    Raises:
        UserError: the module or the name does not exist, or the module raises an exception.
    """
    module, _, attribute = target.partition(":")
    if wrong := _misspelt(module, attribute):
        raise UserError(f"cannot import {target}: {wrong}")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # unlike a script, the command does not have it
    try:
        with _importing(target):
            found = importlib.import_module(module)
    except UserError as error:
        raise UserError(f"cannot import {target}: {error}") from error
    except (Exception, SystemExit) as error:  # a module may raise any exception
        raise UserError(f"cannot import {target}: {_why(module, error)}") from error
    try:
        return operator.attrgetter(attribute)(found)
    except AttributeError as error:
        why = INTERACTIVE if module == "__main__" else _lacks(found, attribute)
        raise UserError(f"cannot import {target}: {why}") from error


def module_name(module: str) -> str | None:
    """Return the name by which another process can import a module; None if it cannot (in a notebook, for example).

    The name differs only for the script that this process was started with: it is the name of its file.

    Example:
        >>> module_name("modelnative.tasks")
        'modelnative.tasks'
    """
    found = sys.modules.get(module)
    if found is None:
        return None
    if module not in ("__main__", "__mp_main__"):  # the second is the first one's name in a child process
        return module if _found_anew(module, found) else None
    if found.__spec__ is not None:  # python -m package.module
        return str(found.__spec__.name)
    name = os.path.splitext(os.path.basename(script_path() or ""))[0]
    return name if _found_anew(name, found) else None


def script_path() -> str | None:
    """Return the file that this process was started with; None in a notebook or an interactive session."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    return path if path is not None and os.path.isfile(path) else None


def _found_anew(name: str, module: ModuleType) -> bool:
    """Whether a search for `name` finds the file of `module`, as in a process that has not imported it."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    parent = sys.modules.get(name.rpartition(".")[0])
    for finder in sys.meta_path:
        spec = finder.find_spec(name, getattr(parent, "__path__", None))
        if spec is not None:
            file = getattr(module, "__file__", None)
            try:
                return file is None or spec.origin is None or os.path.samefile(spec.origin, file)
            except OSError:  # it is another module, built in or frozen
                return False
    return False


def require_not_importing() -> None:
    """Raise a `UserError` while a module is imported to find a task or a tool: training then would recurse."""
    if _importing_now:
        raise UserError(
            f"the module that is imported to find {_importing_now[-1]} starts a training; "
            "put that under: if __name__ == '__main__':"
        )


_importing_now: list[str] = []  # the names that modules are currently imported for


@contextmanager
def _importing(target: str) -> Iterator[None]:
    _importing_now.append(target)
    try:
        yield
    finally:
        _importing_now.pop()


def _misspelt(module: str, attribute: str) -> str:
    """Return what is wrong with the form of a name; empty if nothing is."""
    path = PurePath(module.replace("\\", "/"))
    if path.suffix == ".py" or len(path.parts) > 1 or module.startswith("."):
        parts = path.with_suffix("").parts if path.suffix == ".py" else path.parts
        name = attribute or "NAME"
        if path.is_absolute() or ".." in parts or not all(part.isidentifier() for part in parts):
            return (
                f"a module name is not a path; go to its folder and name it {parts[-1] if parts else 'module'}:{name}"
            )
        return f"expected the name of a module with dots and without .py: {'.'.join(parts)}:{name}"
    if not module or not attribute:
        return "expected module:name, such as mytasks:MyTask for MyTask in mytasks.py"
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        return "a name of letters, digits and _ is expected on either side of one colon, such as mytasks:MyTask"
    return ""


def _why(module: str, error: BaseException) -> str:
    """Return why a module was not imported."""
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        parent = error.name.rpartition(".")[0]
        if parent in sys.modules:
            return f"{parent!r} has no module {error.name!r}"
        here = Path.cwd()
        own = [path.stem for path in here.glob("*.py")] + [path.name for path in here.iterdir() if path.is_dir()]
        near = difflib.get_close_matches(error.name, [name for name in own if name.isidentifier()], n=1)
        if near:
            return f"no module named {error.name!r}; did you mean {near[0]!r}?"
        return (
            f"no module named {error.name!r} in this folder ({here}) or among what is installed; go to the folder of "
            f"{error.name}.py, or install it"
        )
    if isinstance(error, SystemExit):
        return f"{in_words(error)}; put the code of the script under: if __name__ == '__main__':"
    if isinstance(error, ModuleNotFoundError):
        return f"{in_words(error)}; install it, or fix the import"
    return f"{in_words(error)}; fix that first: python -c 'import {module}'"


def _lacks(module: ModuleType, attribute: str) -> str:
    """Return that a module does not have a name, and the names that it has."""
    names = [
        name
        for name, value in vars(module).items()
        if not (name.startswith("_") or inspect.ismodule(value) or name == "annotations")
    ]
    folded = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(attribute.lower(), folded, n=1)
    own = [name for name in names if getattr(vars(module)[name], "__module__", None) == module.__name__] or names
    hint = f"did you mean {folded[near[0]]!r}?" if near else f"it has {', '.join(own[:SHOWN]) or 'no names'}"
    if not near and len(own) > SHOWN:
        hint += " …"
    return f"there is no {attribute!r} in {getattr(module, '__file__', None) or module.__name__}; {hint}"


# Names of tasks that other things are made of: `gymnasium:CartPole-v1`, `arithmetic+recall`


def library_of(name: object) -> str:
    """Return the library that a task's name refers to; empty if it refers to none.

    Example:
        >>> library_of("gymnasium:CartPole-v1"), library_of("arithmetic")
        ('gymnasium', '')
    """
    library, colon, _ = name.partition(":") if isinstance(name, str) else ("", "", "")
    return library if colon and library in LIBRARIES else ""


def maker_of(name: object) -> tuple[str, str] | None:
    """Return what makes a task of such a name, as `module:Class`, and its first argument; None for other names.

    Example:
        >>> maker_of("arithmetic+recall")
        ('modelnative.tasks.mixture.task:NamedMixture', 'arithmetic+recall')
    """
    if not isinstance(name, str):
        return None
    if library := library_of(name):
        return LIBRARIES[library], name.partition(":")[2]
    return (MIXTURE, name) if "+" in name and ":" not in name else None


def module_of(name: str) -> str:
    """Return the module whose code a name would run; empty if it is of this library or of a known one.

    Example:
        >>> module_of("mytasks:MyTask"), module_of("gymnasium:CartPole-v1"), module_of("gymnasium:mytasks:My-v0")
        ('mytasks', '', 'mytasks')
    """
    name = name.partition(":")[2] if library_of(name) else name
    module, colon, _ = name.partition(":")
    return module if colon else ""
