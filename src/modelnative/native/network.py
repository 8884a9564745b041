"""The shipped policy with a GRU of one layer, as kernels read it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from modelnative.native.operators import struct_fields

PARAMETERS = "embedding context weight recurrent bias inner head_weight head_bias"  # in the order of `parameters()`
NUMBERS = "rows width vocabulary places first_place blank feedback_places stage_aware copies"
NETWORK = ", ".join(f"Tensor {name}" for name in PARAMETERS.split())  # in a schema


def network_fields() -> list[tuple[str, type]]:
    """The fields of a struct that begins with a `Network`, as in kernels/network.h."""
    return struct_fields(PARAMETERS.replace("context", "context_table"), NUMBERS)


def network_arguments(policy: Any) -> tuple[list[Tensor], list[int]] | None:
    """A policy's parameters and numbers, in the orders above; None if it is another network than kernels know."""
    describe = getattr(type(policy), "one_gru", None)
    found: tuple[list[Tensor], list[int]] | None = describe(policy) if describe else None
    return found
