"""The kernel of `sample_actions` in training/rollout.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modelnative.native.operators import Call, Kernel, Saved, current_threads, struct_fields


class SampleCall(Call):
    """As in kernels/loss.cpp."""

    prefix = "sample"
    _fields_ = struct_fields("logits uniform share blind", "rows vocabulary threads")


def _forward(learns: bool, logits: Tensor, *rest: Any) -> tuple[tuple[Tensor, Tensor], Saved]:
    action, log_prob = torch.empty(len(logits), dtype=torch.int64), logits.new_empty(len(logits))
    SampleCall(logits, *rest, *logits.shape, current_threads()).run("sample_actions", action, log_prob)
    return (action, log_prob), ()


Kernel("sample_actions(Tensor logits, Tensor? uniform, Tensor? share, Tensor? blind) -> (Tensor, Tensor)", _forward)
