"""Tasks that cannot be made, each for a different reason, and one that can."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from modelnative.tasks.contract.task import Task
from modelnative.tasks.tutorial.task import Tutorial

if TYPE_CHECKING:
    from somewhere import Steps  # type: ignore[import-not-found]

    from modelnative.tasks.contract import task as contract


class Unfinished(Task[Any, Any]):
    pass


class Empty(Tutorial):
    def __init__(self) -> None:
        pass


class Failing(Tutorial):
    def __init__(self) -> None:
        super().__init__(int(1 / 0))


class Further(Tutorial):
    def __init__(self, steps: Steps = 6, **more: Any) -> None:
        more.pop("unused", None)
        super().__init__(**{"horizon": steps, **more})


def leaves() -> Tutorial:
    sys.exit(3)


def same() -> Tutorial:
    return Tutorial  # type: ignore[return-value]


def lies() -> Tutorial:
    return 3  # type: ignore[return-value]


def unannotated():
    """It must not be called."""
    raise AssertionError


def needs(size: int) -> Tutorial:
    return Tutorial(size)


def unresolved(name: Steps = 6) -> Tutorial:
    """Its annotations cannot be evaluated, and its parameter is called like that of `make_task`."""
    return Tutorial(name)


def quoted() -> contract.Task[Any, Any]:
    return Tutorial()


partial = functools.partial(needs, 7)
