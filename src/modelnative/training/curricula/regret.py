"""Stages by regret."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from modelnative.training.config import CurriculumConfig
from modelnative.training.curriculum import Curriculum


class Regret(Curriculum):
    """Stages by exact regret: what the oracle reaches, which is known, minus what the policy reaches.

    Where regret must be estimated (PAIRED, Dennis et al., 2020), stages that nobody can solve draw all attention; here
    they have none, as the oracle fails there, too.
    """

    needs_oracle: ClassVar[bool] = True
    best: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(lengths, horizon, config)
        self.register_buffer("best", (lengths > 0).float(), persistent=False)

    def weights(self, progress: float) -> Tensor:
        return (self.best - self.success).clamp_min(self.config.min_stage_weight)
