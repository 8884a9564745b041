"""REINFORCE with a leave-one-out baseline."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from modelnative.training.algorithm import Algorithm, discounted_returns, leave_one_out, normalize
from modelnative.training.rollout import Rollout


class RLOO(Algorithm):
    """The baseline is the mean return of the other episodes of the problem (Ahmadian et al., 2024)."""

    recipe: ClassVar[dict[str, Any]] = {
        "updates": 6000,
        "loss": {"value_weight": 0.0, "epochs": 1, "minibatches": 4, "clip_low": 0.0, "clip_high": 0.0},
    }
    learning_rate_factor: ClassVar[float] = 0.3
    grouped: ClassVar[bool] = True

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        advantage = normalize(leave_one_out(rollout, self.num_generations), rollout.loss_mask, center=False)
        return advantage, discounted_returns(rollout.reward, self.config.gamma)
