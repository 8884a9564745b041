"""Group relative policy optimization."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from modelnative.training.algorithm import Algorithm, discounted_returns, group_advantages
from modelnative.training.rollout import Rollout


class GRPO(Algorithm):
    """Clipped surrogate with advantages relative to the other episodes of a problem, no critic (Shao et al., 2024)."""

    recipe: ClassVar[dict[str, Any]] = {
        "updates": 3000,
        "loss": {"value_weight": 0.0, "epochs": 2, "minibatches": 4},
    }
    learning_rate_factor: ClassVar[float] = 0.5
    grouped: ClassVar[bool] = True

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        advantage = group_advantages(rollout, self.num_generations, self.config.scale_rewards)
        return advantage, discounted_returns(rollout.reward, self.config.gamma)
