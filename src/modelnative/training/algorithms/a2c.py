"""Advantage actor-critic."""

from __future__ import annotations

from typing import Any, ClassVar

from modelnative.training.algorithms.ppo import PPO


class A2C(PPO):
    """One unclipped pass over each rollout, with PPO's advantages (Mnih et al., 2016)."""

    recipe: ClassVar[dict[str, Any]] = {
        "updates": 6000,
        "loss": {"epochs": 1, "minibatches": 4, "clip_low": 0.0, "clip_high": 0.0},
    }
    learning_rate_factor: ClassVar[float] = 0.3
