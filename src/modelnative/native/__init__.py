"""Kernels in C++ for the CPU, compiled at first use (`build.py`), behind the operators of `operators.py`.

Without a compiler, on other devices, in double precision and under `torch.compile` the plain definitions compute.
"""

from __future__ import annotations

from modelnative.native.build import describe
from modelnative.native.operators import enabled, kernel_threads, operator

__all__ = ["describe", "enabled", "kernel_threads", "operator"]


# TEMPORARY until the calculator's operator is merged
from collections.abc import Sequence
from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from modelnative.native.operators import shared


def computes(device):
    return device.type == "cpu" and enabled()


def _lib():
    return shared()


def _at(t):
    return None if t is None else c_void_p(t.data_ptr())


def press(keys: Tensor, state: Sequence[Tensor], action: Tensor) -> tuple[Tensor, Tensor]:
    """One key of each of n pocket calculators (`tasks/arithmetic.py`).

    Args:
        keys: int32, what `Keys.words` gives.
        state: mode, entry, left, memory, value and target, int64 [n] each.
        action: int64 [n].

    Returns:
        Mode, entry, left, memory and value, int64 [5, n]; done, success and invalid, bool [3, n].
    """
    n = len(action)
    numbers, verdicts = torch.empty(5, n, dtype=torch.int64), torch.empty(3, n, dtype=torch.bool)
    given = [tensor.contiguous() for tensor in (*state, action)]
    read = (c_void_p * len(given))(*(tensor.data_ptr() for tensor in given))
    _lib().press(_at(keys), read, c_int64(n), _at(numbers), _at(verdicts))
    return numbers, verdicts


def display(upper: Tensor, lower: Tensor, value: Tensor, places: int) -> Tensor:
    """What pocket calculators show of values, int64 [n], by the tables of `tasks/arithmetic.py`: int64 [n, places]."""
    shown, value = torch.empty(len(value), places, dtype=torch.int64), value.contiguous()
    _lib().display(_at(upper), _at(lower), _at(value), c_int64(len(value)), c_int64(places), _at(shown))
    return shown
