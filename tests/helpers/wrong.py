"""Tasks that cannot be made, each for a different reason, and one that can."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from modelnative.tasks.contract.task import Task
from modelnative.tasks.tutorial.task import Tutorial

if TYPE_CHECKING:
    from somewhere import Steps  # type: ignore[import-not-found]


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


def same() -> type[Tutorial]:
    return Tutorial


def needs(size: int) -> Tutorial:
    return Tutorial(size)
