"""Stages by a bandit."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.training.config import CurriculumConfig
from modelnative.training.curriculum import Curriculum, Draw, success_rates


class Bandit(Curriculum):
    """Stages by a bandit whose reward is the mean size of the advantages (SEC, Chen et al., 2025).

    For a reward of 0 or 1 that is 2p(1 − p), p being a batch's success. Values follow it by temporal differences, and
    stages are drawn by their softmax. Unlike there, the weight of a stage is at least `min_stage_weight` times that of
    the stage with the highest value: a solved stage, whose value is 0, would be forgotten.

    Attributes:
        value: float [S].
    """

    RATE, TEMPERATURE = 0.3, 0.1
    value: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(lengths, horizon, config)
        self.register_buffer("value", torch.full_like(self.success, 0.5))  # the most there can be: try everything

    def weights(self, progress: float) -> Tensor:
        return ((self.value - self.value.max()) / self.TEMPERATURE).exp().clamp_min(self.config.min_stage_weight)

    def observe(self, draw: Draw, success: Tensor) -> None:
        super().observe(draw, success)
        rate, count = success_rates(draw.stage, success, torch.ones_like(success), self)
        followed = self.value + self.RATE * (2 * rate * (1 - rate) - self.value)
        self.value.copy_(torch.where(count > 0, followed, self.value))
