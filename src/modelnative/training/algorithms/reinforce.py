"""REINFORCE."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from modelnative.training.algorithm import Algorithm, discounted_returns, normalize, stage_baseline
from modelnative.training.rollout import Rollout


class Reinforce(Algorithm):
    """Returns against the mean return of their stage (Williams, 1992)."""

    recipe: ClassVar[dict[str, Any]] = {
        "updates": 6000,
        "loss": {"value_weight": 0.0, "epochs": 1, "minibatches": 4, "clip_low": 0.0, "clip_high": 0.0},
    }
    learning_rate_factor: ClassVar[float] = 0.3

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        returns = discounted_returns(rollout.reward, self.config.gamma)
        advantage = normalize(returns - stage_baseline(rollout, returns), rollout.loss_mask, center=False)
        return advantage, returns
