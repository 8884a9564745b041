"""The one exception that means "the input is at fault, and here is the remedy"."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """Bad input. The message names the field, the value and what is allowed.

    The command line prints it as one line and exits with code 2; from Python it is an ordinary `ValueError`.
    """


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
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {kind} {value!r}{hint} Allowed: {', '.join(names)}"


def shown(value: object) -> str:
    """A value as a message repeats it: its `repr`, if that is short.

    Example:
        >>> shown("x" * 500), shown(10**5000)
        ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...", 'a number of thousands of digits')
    """
    try:
        text = repr(value)
    except ValueError:  # an int with more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:60]}..."


SHOWN = 200  # characters of a value that a message repeats


def in_words(error: BaseException) -> str:
    """An exception of somebody's code in one line: its type, what it says, and where it was raised.

    Example:
        >>> in_words(ValueError("too bad"))
        'ValueError: too bad'
    """
    words = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    if not frames or isinstance(error, SyntaxError):  # which says itself where
        return words
    return f"{words} ({Path(frames[-1].filename).name}, line {frames[-1].lineno}, in {frames[-1].name})"
