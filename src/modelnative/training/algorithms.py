"""The algorithms that are shipped, each with its recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from modelnative.training.algorithm import (
    Algorithm,
    discounted_returns,
    generalized_advantages,
    group_advantages,
    in_reward_units,
    largest_return,
    leave_one_out,
    normalize,
    stage_baseline,
)
from modelnative.training.rollout import Rollout

PASS: dict[str, Any] = {"epochs": 1, "minibatches": 6}  # over each rollout
UNCLIPPED: dict[str, Any] = {**PASS, "clip_low": 0.0, "clip_high": 0.0}


class PPO(Algorithm):
    """Clipped surrogate and generalized advantages from a critic (Schulman et al., 2017).

    The critic's unit is a power of ten of the reward's where rewards are far from 1; see `in_reward_units`.
    """

    recipe: ClassVar[dict[str, Any]] = {"updates": 2000, "loss": PASS}

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        rollout = in_reward_units(rollout, self.config.gamma, self.config.reward_scale)
        advantage = generalized_advantages(rollout, self.config.gamma, self.config.gae_lambda)
        normalized = normalize(advantage, rollout.loss_mask, largest=largest_return(rollout))
        return normalized, advantage + rollout.value


class A2C(PPO):
    """One unclipped pass over each rollout, with PPO's advantages (Mnih et al., 2016)."""

    recipe: ClassVar[dict[str, Any]] = {"updates": 6000, "loss": UNCLIPPED}
    learning_rate_factor: ClassVar[float] = 0.3


class GRPO(Algorithm):
    """Clipped surrogate with advantages relative to the other episodes of a problem, no critic (Shao et al., 2024)."""

    recipe: ClassVar[dict[str, Any]] = {"updates": 3000, "loss": {**PASS, "value_weight": 0.0}}
    learning_rate_factor: ClassVar[float] = 0.5
    grouped: ClassVar[bool] = True

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        advantage = group_advantages(rollout, self.num_generations, self.config.scale_rewards)
        return advantage, discounted_returns(rollout.reward, self.config.gamma)


class RLOO(Algorithm):
    """The baseline is the mean return of the other episodes of the problem (Ahmadian et al., 2024).

    The surrogate is clipped, as in TRL: without it, some seeds stay at what T1 taught them.
    """

    recipe: ClassVar[dict[str, Any]] = {"updates": 3000, "loss": {**PASS, "value_weight": 0.0}}
    learning_rate_factor: ClassVar[float] = 0.3
    grouped: ClassVar[bool] = True

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        left_out, largest = leave_one_out(rollout, self.num_generations), largest_return(rollout)
        advantage = normalize(left_out, rollout.loss_mask, center=False, largest=largest)
        return advantage, discounted_returns(rollout.reward, self.config.gamma)


class Reinforce(Algorithm):
    """Returns against the mean return of their stage (Williams, 1992)."""

    recipe: ClassVar[dict[str, Any]] = {"updates": 6000, "loss": {**UNCLIPPED, "value_weight": 0.0}}
    learning_rate_factor: ClassVar[float] = 0.3

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        returns = discounted_returns(rollout.reward, self.config.gamma)
        plain, largest = returns - stage_baseline(rollout, returns), largest_return(rollout)
        advantage = normalize(plain, rollout.loss_mask, center=False, largest=largest)
        return advantage, returns
