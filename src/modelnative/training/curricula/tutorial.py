"""The published tutorial's schedule."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.training.curriculum import Curriculum


class TutorialSchedule(Curriculum):
    """The published tutorial's fixed schedule: half of the updates on T0, a third on T1, the last sixth on T2."""

    SCHEDULE = (0, 0, 0, 1, 1, 2)

    def weights(self, progress: float) -> Tensor:
        stage = self.SCHEDULE[min(int(progress * len(self.SCHEDULE)), len(self.SCHEDULE) - 1)]
        return (
            torch.arange(len(self.lengths), device=self.success.device) == min(stage, len(self.lengths) - 1)
        ).float()
