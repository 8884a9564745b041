"""The algorithms that are shipped, each with its recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from modelnative.training.algorithm import (
    Algorithm,
    discounted_returns,
    generalized_advantages,
    group_advantages,
    leave_one_out,
    normalize,
    stage_baseline,
)
from modelnative.training.rollout import Rollout

# One unclipped pass without a critic needs more and smaller steps.
UNCLIPPED: dict[str, Any] = {
    "updates": 6000,
    "loss": {"value_weight": 0.0, "epochs": 1, "minibatches": 4, "clip_low": 0.0, "clip_high": 0.0},
}


class PPO(Algorithm):
    """Clipped surrogate and generalized advantages from a critic (Schulman et al., 2017)."""

    recipe: ClassVar[dict[str, Any]] = {"updates": 2000, "loss": {"epochs": 1, "minibatches": 6}}

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        advantage = generalized_advantages(rollout, self.config.gamma, self.config.gae_lambda)
        return normalize(advantage, rollout.loss_mask), advantage + rollout.value


class A2C(PPO):
    """One unclipped pass over each rollout, with PPO's advantages (Mnih et al., 2016)."""

    recipe: ClassVar[dict[str, Any]] = {
        "updates": 6000,
        "loss": {"epochs": 1, "minibatches": 4, "clip_low": 0.0, "clip_high": 0.0},
    }
    learning_rate_factor: ClassVar[float] = 0.3


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


class RLOO(Algorithm):
    """The baseline is the mean return of the other episodes of the problem (Ahmadian et al., 2024)."""

    recipe: ClassVar[dict[str, Any]] = UNCLIPPED
    learning_rate_factor: ClassVar[float] = 0.3
    grouped: ClassVar[bool] = True

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        advantage = normalize(leave_one_out(rollout, self.num_generations), rollout.loss_mask, center=False)
        return advantage, discounted_returns(rollout.reward, self.config.gamma)


class Reinforce(Algorithm):
    """Returns against the mean return of their stage (Williams, 1992)."""

    recipe: ClassVar[dict[str, Any]] = UNCLIPPED
    learning_rate_factor: ClassVar[float] = 0.3

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        returns = discounted_returns(rollout.reward, self.config.gamma)
        advantage = normalize(returns - stage_baseline(rollout, returns), rollout.loss_mask, center=False)
        return advantage, returns
