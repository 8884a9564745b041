"""Proximal policy optimization."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from modelnative.training.algorithm import Algorithm, generalized_advantages, normalize
from modelnative.training.rollout import Rollout


class PPO(Algorithm):
    """Clipped surrogate and generalized advantages from a critic (Schulman et al., 2017)."""

    recipe: ClassVar[dict[str, Any]] = {"updates": 2000, "loss": {"epochs": 1, "minibatches": 6}}

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        advantage = generalized_advantages(rollout, self.config.gamma, self.config.gae_lambda)
        return normalize(advantage, rollout.loss_mask), advantage + rollout.value
