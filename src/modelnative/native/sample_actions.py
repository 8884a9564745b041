"""The kernel of `sample_actions` in training/rollout.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from modelnative.native.operators import address, computable, current_threads, define, function


@functools.cache
def _function() -> Callable[..., None]:
    return function("sample_actions", *[c_void_p] * 4, *[c_int64] * 3, *[c_void_p] * 2)


def supports(
    logits: Tensor, uniform: Tensor | None = None, share: Tensor | None = None, blind: Tensor | None = None
) -> bool:
    """Whether there is a kernel for these arguments of `sample_actions`."""
    return computable(*(x for x in (logits, uniform, share, blind) if x is not None))


def call(
    logits: Tensor, uniform: Tensor | None = None, share: Tensor | None = None, blind: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As `sample_actions`."""
    action, log_prob = torch.ops.modelnative.sample_actions.default(logits, uniform, share, blind)
    return action, log_prob


def _forward(
    logits: Tensor, uniform: Tensor | None, share: Tensor | None, blind: Tensor | None
) -> tuple[Tensor, Tensor]:
    tensors = [None if x is None else x.contiguous() for x in (logits, uniform, share, blind)]
    action, log_prob = torch.empty(len(logits), dtype=torch.int64), logits.new_empty(len(logits))
    _function()(*map(address, tensors), *logits.shape, current_threads(), address(action), address(log_prob))
    return action, log_prob


define("sample_actions(Tensor logits, Tensor? uniform, Tensor? share, Tensor? blind) -> (Tensor, Tensor)", _forward)
