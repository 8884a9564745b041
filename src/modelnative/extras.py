"""Imports of optional packages, which are extras of this one."""

from __future__ import annotations

import importlib
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from modelnative.errors import UserError


class MissingExtraError(UserError, ModuleNotFoundError):
    """An optional package is not installed. It is an import error, too, so that what skips those skips it."""


def optional(module: str, extra: str, first: str, below: str, package: str | None = None) -> Any:
    """Import a module of an optional package.

    Args:
        module: the module.
        extra: the extra of `modelnative` that installs its package.
        first, below: the versions that were tested: from `first`, and below `below`.
        package: the name of the package; by default the first part of `module`.

    Raises:
        MissingExtraError: it is not installed, needs a package that is not, or its version does not have the module;
            the message names the extra.

    Warns:
        UserWarning: its version was not tested.
    """
    package = package or module.partition(".")[0]
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        install = f"install it with: pip install 'modelnative[{extra}]'"
        try:
            installed = version(package)
        except PackageNotFoundError:
            raise MissingExtraError(f"{package}: it is not installed; {install}") from error
        missing = error.name or str(error)
        if module == missing or module.startswith(f"{missing}."):
            tested = f"tested: from {first}, below {below}"
            raise MissingExtraError(f"{package} {installed} has no module {missing}; {tested}; {install}") from error
        raise MissingExtraError(f"{package} {installed} needs {missing}, which is not installed; {install}") from error
    installed = version(package)
    if not _release(first) <= _release(installed) < _release(below):
        text = f"{package} {installed} was not tested with modelnative; tested: from {first}, below {below}"
        warnings.warn(text, UserWarning, stacklevel=3)
    return found


def _release(text: str) -> tuple[int, ...]:
    """The leading numbers of a version, such as (1, 16, 0) of 1.16.0rc1."""
    numbers = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
