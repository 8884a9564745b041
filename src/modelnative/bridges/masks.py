"""Which actions are accepted."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, State


def valid_actions(task: AnyTask, state: State) -> Tensor:
    """Which actions `Task.valid` accepts in each of n episodes, bool [n, V]; all where it is over."""
    return torch.as_tensor(task.valid(state)) | state.done[:, None]
