"""Kernels in C++ for the CPU, compiled at first use (`build.py`), behind the operators of `operators.py`.

Without a compiler, on other devices, in double precision and under `torch.compile` the plain definitions compute.
"""

from __future__ import annotations

from modelnative.native.build import Kernels, backend, cache_folders, compilers, describe, kernels
from modelnative.native.operators import enabled, kernel_threads, operator

__all__ = [
    "Kernels",
    "backend",
    "cache_folders",
    "compilers",
    "describe",
    "enabled",
    "kernel_threads",
    "kernels",
    "operator",
]
