"""Stages by learning progress."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.training.config import CurriculumConfig
from modelnative.training.curriculum import Curriculum, Draw


class LearningProgress(Curriculum):
    """Stages by learning progress: the distance between a fast and a slow average of success (Matiisen et al., 2017).

    Attributes:
        slow: float [S], success averaged over ten times as many updates as `success`.
    """

    slow: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(lengths, horizon, config)
        self.register_buffer("slow", torch.zeros_like(self.success))

    def weights(self, progress: float) -> Tensor:
        change = (self.success - self.slow).abs()
        # Where nothing moves, all are looked at alike.
        return change / change.max().clamp_min(0.01) + self.config.min_stage_weight

    def observe(self, draw: Draw, success: Tensor) -> None:
        super().observe(draw, success)
        self.slow += (1 - self.config.success_ema) / 10 * (self.success - self.slow)
