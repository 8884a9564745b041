"""Stages by learnability."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.training.curriculum import Curriculum


class Learnability(Curriculum):
    """Stages by p(1 − p), p the success so far (Tzannetos et al., 2023; SFL, Rutherford et al., 2024)."""

    def weights(self, progress: float) -> Tensor:
        unknown = torch.where(self.seen, self.success * (1 - self.success), 0.25)
        return unknown + self.config.min_stage_weight
