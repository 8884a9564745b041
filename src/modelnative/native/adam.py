"""The kernel of `clipped_adam` in training/adam.py."""

from __future__ import annotations

from ctypes import addressof, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from modelnative.native.operators import Call, Kernel, Saved, struct_fields

LISTS = 5  # of tensors


class AdamCall(Call):
    """As in kernels/adam.cpp."""

    prefix = "adam"
    _fields_ = struct_fields(
        "parameters gradients averages squares steps sizes", "count", "lr max_norm beta1 beta2 epsilon"
    )


def _fits(*args: Any) -> bool:
    return all(x.dtype == torch.float32 and x.is_cpu and x.is_contiguous() for some in args[:LISTS] for x in some)


def _forward(learns: bool, *args: Any) -> tuple[Tensor, Saved]:
    """The norm of the gradient."""
    lists, numbers, norm = args[:LISTS], args[LISTS:], torch.empty((), dtype=torch.float32)
    count = len(lists[0])
    pointers = [(c_void_p * count)(*[x.data_ptr() for x in some]) for some in lists]
    sizes = (c_int64 * count)(*[x.numel() for x in lists[0]])
    AdamCall(*map(addressof, pointers), addressof(sizes), count, *numbers).run("adam_step", norm)
    return norm, ()


Kernel(
    "clipped_adam(Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] averages, Tensor(c!)[] squares, "
    "Tensor(d!)[] steps, float lr, float max_norm, float beta1, float beta2, float epsilon) -> Tensor",
    _forward,
    fits=_fits,
)
