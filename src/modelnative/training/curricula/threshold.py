"""Stages that open one after the other."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from modelnative.training.config import CurriculumConfig
from modelnative.training.curriculum import Curriculum, Draw


class Threshold(Curriculum):
    """Stages open one after the other, each when the one before succeeds; none is ever forgotten.

    Attributes:
        opened: int64 [], how many stages are open.
    """

    recipe: ClassVar[dict[str, Any]] = {"curricula": {"threshold": 0.9}}
    opened: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(lengths, horizon, config)
        self.register_buffer("opened", torch.tensor(1))

    def weights(self, progress: float) -> Tensor:
        is_open = torch.arange(len(self.lengths), device=self.opened.device) < self.opened
        return is_open * (1 - self.success).clamp_min(self.config.min_stage_weight)

    def observe(self, draw: Draw, success: Tensor) -> None:
        super().observe(draw, success)
        if self.opened < len(self.lengths) and self.success[self.opened - 1] > self.config.threshold:
            self.opened += 1

    def describe(self) -> list[str]:
        return ["" if s < self.opened else "locked" for s in range(len(self.lengths))]
