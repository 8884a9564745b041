"""Operators: functions with a plain definition in torch and, on a CPU, a kernel of the same signature.

A function is declared where a reader looks for it, with its plain definition as its body:

    @operator("gru")
    def gru(inputs, rows, initial, weight, bias, lengths): ...

The definition is what the function means, and autograd differentiates it. Where the module `modelnative.native.NAME`
has a kernel for the given arguments, that computes instead; `tests/native` hold both together. A kernel is a
`torch.library` operator, `torch.ops.modelnative.NAME`, with its own derivative.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_int64, c_void_p
from typing import Any, ClassVar, ParamSpec, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelnative.native.build import library

P = ParamSpec("P")
R = TypeVar("R")
Arguments: TypeAlias = Sequence[Any]  # tensors, numbers and None
Saved: TypeAlias = Sequence[Tensor | None]

# `Library.impl` takes a fifth of the time of `torch.library.custom_op` for each call.
LIBRARY = torch.library.Library("modelnative", "FRAGMENT")
DTYPES = (torch.float32, torch.int64, torch.int32, torch.bool)  # that kernels read
KERNELS: dict[str, Kernel] = {}
_THREADS = threading.local()
_TORCH_THREADS: list[int] = []  # of torch before each open block of `kernel_threads`


def operator(module: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a function as the plain definition of the operator of its name; see the module's docstring.

    Args:
        module: of `modelnative.native`, which has the kernel. It is imported at the first call.
    """

    def declare(plain: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(plain)
        defaults = [parameter.default for parameter in signature.parameters.values()]

        @functools.cache
        def kernel() -> Kernel:
            importlib.import_module(f"modelnative.native.{module}")
            return KERNELS[plain.__name__]

        @functools.wraps(plain)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if enabled():
                given: tuple[Any, ...] = (*args, *defaults[len(args) :])
                if kwargs:  # binding them takes as long as a small kernel
                    bound = signature.bind(*args, **kwargs)
                    bound.apply_defaults()
                    given = bound.args
                arguments = kernel().flatten(*given)
                if arguments is not None and kernel().supports(*arguments):
                    result: R = kernel().operator(*arguments)
                    return result
            return plain(*args, **kwargs)

        return call

    return declare


class Kernel:
    """A kernel, registered as an operator of torch in the namespace `modelnative`.

    Args:
        schema: the operator's name, that of the plain definition, and its types.
        forward: (learns, *arguments) -> what it returns, and, if `learns`, the tensors that `backward` needs besides
            the arguments.
        backward: (arguments, saved, *gradients of the results) -> the gradients of the first arguments; the others have
            none. None: the operator is not differentiable.
        flatten: the operator's arguments, from those of the plain definition; None if there is no kernel for them.
        fits: whether there is a kernel for arguments of such sizes.
    """

    def __init__(
        self,
        schema: str,
        forward: Callable[..., tuple[Any, Saved]],
        backward: Callable[..., Sequence[Tensor]] | None = None,
        flatten: Callable[..., Arguments | None] = lambda *args: args,
        fits: Callable[..., bool] = lambda *args: True,
    ) -> None:
        self.forward, self.backward, self.flatten, self.fits = forward, backward, flatten, fits
        name = schema.partition("(")[0]
        LIBRARY.define(schema)
        LIBRARY.impl(name, self.compute, "CPU")
        if backward:
            LIBRARY.impl(name, self.differentiable, "AutogradCPU")
        self.operator: Callable[..., Any] = getattr(torch.ops.modelnative, name).default
        KERNELS[name] = self

    def supports(self, *args: Any) -> bool:
        """Whether it computes what the plain definition would."""
        for x in args:
            if isinstance(x, Tensor) and not (x.is_cpu and x.dtype in DTYPES):
                return False
        return self.fits(*args)

    def compute(self, *args: Any) -> Any:
        """What the operator returns."""
        return self.forward(False, *args)[0]

    def differentiable(self, *args: Any) -> Any:
        """The same, where a gradient may be asked for."""
        return _Derivative.apply(self, *args) if torch.is_grad_enabled() else self.compute(*args)  # type: ignore[no-untyped-call]


class _Derivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, *args: Any) -> Any:
        outputs, saved = kernel.forward(True, *args)
        ctx.save_for_backward(*(x if isinstance(x, Tensor) else None for x in args), *saved)
        ctx.backward_of, ctx.others = kernel.backward, [None if isinstance(x, Tensor) else x for x in args]
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        count, tensors = len(ctx.others), ctx.saved_tensors
        args = [other if tensor is None else tensor for tensor, other in zip(tensors, ctx.others, strict=False)]
        gradients = ctx.backward_of(args, tensors[count:], *(grad.contiguous() for grad in grads))
        return None, *gradients, *[None] * (count - len(gradients))


def enabled() -> bool:
    """Whether there are kernels here; `torch.compile` traces the plain definitions."""
    return not torch.compiler.is_compiling() and library() is not None


@functools.cache
def lanes() -> int:
    """How many floats a vector of this processor holds; widths must be multiples of it."""
    return int(shared().lanes())


@contextmanager
def kernel_threads(threads: int) -> Iterator[None]:
    """Within the block, kernels that this thread calls use that many threads; results do not depend on it.

    Torch's own operations are too small to be worth sharing here and use one thread.
    """
    outer = getattr(_THREADS, "count", None)
    # A thread that is new has the number that torch was told last, which may be the 1 of a block in another thread.
    before = torch.get_num_threads() if outer or not _TORCH_THREADS else _TORCH_THREADS[0]
    _TORCH_THREADS.append(before)
    _THREADS.count = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _THREADS.count = outer
        _TORCH_THREADS.remove(before)
        torch.set_num_threads(before)


def current_threads() -> int:
    """How many threads a kernel may use now."""
    return getattr(_THREADS, "count", None) or 1


def shared() -> ctypes.CDLL:
    """The compiled library, which must be there; see `enabled`."""
    found = library()
    assert found is not None, "call `enabled` first"
    return found


class Call(ctypes.Structure):
    """The arguments of a kernel as a C++ struct: pointers first, then 64-bit integers, then 32-bit floats.

    Tensors, which are kept alive, are given for pointers, None for null.

    Attributes:
        prefix: of the C++ functions that take the struct; PREFIX_call_size() is its size there.
    """

    prefix: ClassVar[str]

    def __init__(self, *values: Tensor | float | None) -> None:
        self.held = [x.contiguous() if isinstance(x, Tensor) else x for x in values]
        super().__init__(*[x.data_ptr() if isinstance(x, Tensor) else x for x in self.held])

    def run(self, name: str, *tensors: Tensor | None) -> None:
        """Call a C++ function with the struct and tensors, contiguous unless it knows their strides."""
        pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        _function(type(self), name, len(tensors))(ctypes.byref(self), *pointers)


@functools.cache
def _function(kind: type[Call], name: str, pointers: int) -> Callable[..., None]:
    """The C++ function that takes a struct of this kind and so many pointers."""
    size = shared()[f"{kind.prefix}_call_size"]
    size.restype = c_int64
    assert size() == ctypes.sizeof(kind), f"{kind.__name__} is not the struct that C++ has"
    found = shared()[name]
    found.argtypes, found.restype = [ctypes.POINTER(kind), *[c_void_p] * pointers], None
    return found


def struct_fields(pointers: str, integers: str, floats: str = "") -> list[tuple[str, type]]:
    """The fields of a `Call`, named by words."""
    parts = ((pointers, c_void_p), (integers, c_int64), (floats, ctypes.c_float))
    return [(name, kind) for names, kind in parts for name in names.split()]
