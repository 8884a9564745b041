"""The one exception that means "the input is at fault, and here is the remedy"."""

from __future__ import annotations

import difflib
import errno
import numbers
import os
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_SAID = 500  # characters of another exception in a message
SHOWN = 200  # characters of a value that a message repeats; of a longer one the first 60


class UserError(ValueError):
    """Bad input. The message names the field, the value and what is allowed.

    The command line prints it as one line and exits with code 2; from Python it is an ordinary `ValueError`.
    """


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise a `UserError` with `field`, `value` and what is `allowed` unless `condition` holds."""
    if not condition:
        raise UserError(f"{field}: {shown(value)} is not allowed; expected {allowed}")


def require_number(
    field: str, value: Any, least: float, most: float, allowed: str, *, whole: bool = True, above: bool = False
) -> None:
    """Raise a `UserError` unless a value is a number in its bounds. True and False are no numbers.

    Args:
        field: for the message.
        value: of any type, as a program passes it.
        least, most: the bounds.
        allowed: them in words.
        whole: whether it must be a whole number.
        above: whether it must be more than `least`.

    Example:
        >>> require_number("seeds", 2.0, 1, 9, "from 1 to 9")
        Traceback (most recent call last):
        modelnative.errors.UserError: seeds: 2.0 is not allowed; expected from 1 to 9
    """
    is_number = type(value) is not bool and isinstance(value, numbers.Integral if whole else numbers.Real)
    require(is_number and least <= value <= most and not (above and value == least), field, value, allowed)


def require_path(field: str, path: Path) -> None:
    """Raise a `UserError` if no file can have this path: it has a zero byte, no encoding, or is too long."""
    try:
        os.lstat(path)
    except ValueError:
        require(False, field, str(path), "a path without zero bytes or lone surrogates")
    except OSError as error:
        require(error.errno != errno.ENAMETOOLONG, field, str(path), "a shorter path")


def choose(field: str, value: object, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`; otherwise raise, naming the nearest of them.

    Raises:
        UserError: `value` is not in `allowed`.

    Example:
        >>> choose("core", "gru", ["gru", "mingru"])
        'gru'
        >>> choose("core", "grru", ["gru", "mingru"])
        Traceback (most recent call last):
        modelnative.errors.UserError: core: unknown value 'grru'; did you mean 'gru'? Allowed: gru, mingru
    """
    names = list(allowed)
    if isinstance(value, str) and value in names:
        return value
    raise UserError(f"{field}: {unknown('value', value, names)}")


def unknown(kind: str, value: object, allowed: Iterable[str]) -> str:
    """Say that a name is unknown, which known one is nearest, and which are allowed.

    Example:
        >>> unknown("field", "widht", ["width", "layers"])
        "unknown field 'widht'; did you mean 'width'? Allowed: width, layers"
    """
    names = list(allowed)
    near = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {shown(value)}{hint} Allowed: {', '.join(names)}"


def shown(value: object) -> str:
    """A value as a message repeats it: its `repr`, if that is short.

    Example:
        >>> shown("x" * 500), shown(10**5000)
        ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...", 'a number of thousands of digits')
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # such as ValueError for an int with more digits than Python prints
        kind = type(value).__name__
        return "a number of thousands of digits" if kind == "int" else f"a value of type {kind}"
    return text if len(text) <= SHOWN else f"{text[:60]}..."


def in_words(error: BaseException) -> str:
    """An exception of somebody's code in one line: its type, what it says, and where it was raised.

    A `UserError` says by itself what is wrong.

    Example:
        >>> in_words(ValueError("too bad"))
        'ValueError: too bad'
    """
    try:
        said = " ".join(str(error).split())
    except Exception:  # noqa: BLE001  # an exception may fail to say what it is about
        said = ""
    if isinstance(error, UserError):
        return said
    words = f"{type(error).__name__}: {said[:MAX_SAID]}".removesuffix(": ")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    if not frames or isinstance(error, SyntaxError):  # which says itself where
        return words
    return f"{words} ({Path(frames[-1].filename).name}, line {frames[-1].lineno}, in {frames[-1].name})"
