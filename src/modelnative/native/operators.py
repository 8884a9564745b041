"""Operators: functions with a plain definition in torch and, on a CPU, a kernel of the same signature.

A function is declared where a reader looks for it, with its plain definition as its body:

    @operator("gru")
    def gru(inputs, rows, initial, weight, bias, lengths, padding): ...

The definition is what the function means, and autograd differentiates it. Where the module `modelnative.native.NAME`
has a kernel for the given arguments, that computes instead; `tests/native` hold both together. A kernel is a
`torch.library` operator, `torch.ops.modelnative.NAME`, with its own derivative.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int64, c_void_p
from typing import ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from modelnative.native.build import library

P = ParamSpec("P")
R = TypeVar("R")

LIBRARY = torch.library.Library("modelnative", "FRAGMENT")
_THREADS = threading.local()


class Kernel(Protocol):
    """A module with a kernel: `supports` says whether `call` computes what the plain definition would, given these."""

    supports: Callable[..., bool]
    call: Callable[..., object]


def operator(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a function as the plain definition of an operator; see the module's docstring.

    Args:
        name: of the module in `modelnative.native` that has the kernel. It is imported at the first call.
    """

    def declare(plain: Callable[P, R]) -> Callable[P, R]:
        @functools.cache
        def kernel() -> Kernel:
            return importlib.import_module(f"modelnative.native.{name}")

        @functools.wraps(plain)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if enabled() and kernel().supports(*args, **kwargs):
                return kernel().call(*args, **kwargs)  # type: ignore[return-value]
            return plain(*args, **kwargs)

        return call

    return declare


def define(schema: str, forward: Callable[..., object], derivative: Callable[..., object] | None = None) -> None:
    """Register a kernel as an operator of the namespace `modelnative`.

    Args:
        schema: its name and types.
        forward: computes it on the CPU.
        derivative: the same for tensors that need a gradient: an `apply` of a `torch.autograd.Function`.
    """
    name = schema.partition("(")[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, forward, "CPU")
    if derivative is None:
        return

    def differentiable(*args: object) -> object:
        return derivative(*args) if torch.is_grad_enabled() else forward(*args)

    LIBRARY.impl(name, differentiable, "AutogradCPU")


def enabled() -> bool:
    """Whether there are kernels here; `torch.compile` traces the plain definitions."""
    return not torch.compiler.is_compiling() and library() is not None


def computable(*tensors: Tensor) -> bool:
    """Whether all tensors are float32 on the CPU."""
    return all(tensor.element_size() == 4 and tensor.device.type == "cpu" for tensor in tensors)


def lanes() -> int:
    """How many floats a vector of this processor holds; widths must be multiples of it."""
    return int(shared().lanes())


@contextmanager
def kernel_threads(threads: int) -> Iterator[None]:
    """Within the block, kernels that this thread calls use that many threads; results do not depend on it.

    Torch's own operations are too small to be worth sharing here and use one thread.
    """
    kernels_before, torch_before = current_threads(), torch.get_num_threads()
    _THREADS.count = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _THREADS.count = kernels_before
        torch.set_num_threads(torch_before)


def current_threads() -> int:
    """How many threads a kernel may use now."""
    return getattr(_THREADS, "count", 1)


def shared() -> ctypes.CDLL:
    """The compiled library, which must be there; see `enabled`."""
    found = library()
    assert found is not None, "call `enabled` first"
    return found


@functools.cache
def function(name: str, *kinds: type) -> Callable[..., None]:
    """A function of the library by its name and the C types of its arguments."""
    found = shared()[name]
    found.argtypes, found.restype = kinds, None
    return found


class Call(ctypes.Structure):
    """The arguments of a kernel as a C++ struct: pointers first, then 64-bit integers, then 32-bit floats.

    Tensors are given for pointers, None for null; they must live until the kernel returns.
    """

    @classmethod
    def checked(cls, size_function: str) -> None:
        """Assert that C++ has a struct of this size."""
        size = shared()[size_function]
        size.restype = c_int64
        assert size() == ctypes.sizeof(cls), f"{cls.__name__} is not the struct that C++ has"


def struct_fields(pointers: str, integers: str, floats: str = "") -> list[tuple[str, type]]:
    """The fields of a `Call`, named by words."""
    parts = ((pointers, c_void_p), (integers, c_int64), (floats, ctypes.c_float))
    return [(name, kind) for names, kind in parts for name in names.split()]


def address(tensor: Tensor | None) -> int | None:
    """Where a contiguous tensor's numbers lie; None stays None."""
    assert tensor is None or tensor.is_contiguous(), "a kernel was given a tensor that is not contiguous"
    return None if tensor is None else tensor.data_ptr()
