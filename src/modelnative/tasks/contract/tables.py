"""Lookup tables of a task, made once for each device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class PerDevice(Generic[T]):
    """A value that is made when it is first needed on a device, and then kept.

    It is used instead of `functools.cache`, which `torch.compile` ignores.

    Args:
        make: returns the value for a device.

    Example:
        >>> powers = PerDevice(lambda device: 2 ** torch.arange(4, device=device))
        >>> powers(torch.device("cpu")).tolist(), powers(torch.device("cpu")) is powers(torch.device("cpu"))
        ([1, 2, 4, 8], True)
    """

    def __init__(self, make: Callable[[torch.device], T]) -> None:
        self._make = make
        self._made: dict[torch.device, T] = {}

    def __call__(self, device: torch.device) -> T:
        """Return the value for `device`."""
        if device not in self._made:
            self._made[device] = self._make(device)
        return self._made[device]
