"""The variables that a launcher such as torchrun sets, read together. Importing this does not import torch."""

from __future__ import annotations

import os
from typing import NamedTuple

from modelnative.errors import UserError, shown


class Launch(NamedTuple):
    """This process's place among the processes that train one policy together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def launch() -> Launch:
    """What RANK, WORLD_SIZE and LOCAL_RANK say together.

    There is a group only where WORLD_SIZE is more than 1. Without one this process is rank 0, whatever RANK says:
    schedulers and shells leave such variables behind.

    Raises:
        UserError: a variable is not a number, or those of a group do not fit each other.
    """
    size = _number("WORLD_SIZE", 1)
    if size is None or size == 1:
        return Launch()
    rank = _number("RANK", 0, size - 1)
    if rank is None:
        raise UserError(f"RANK: is not set, but WORLD_SIZE is {size}; start with torchrun, or unset WORLD_SIZE")
    return Launch(rank, size, _number("LOCAL_RANK", 0, size - 1) or 0)


def _number(name: str, least: int, most: int = 1_000_000) -> int | None:
    """A variable's whole number; None where it is not set or empty."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most:
        return int(text)
    raise UserError(
        f"{name}: {shown(text)} is not allowed; expected a whole number from {least} to {most}; "
        "start with torchrun, or unset RANK, WORLD_SIZE and LOCAL_RANK"
    )
