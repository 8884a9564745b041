"""A small Gymnasium environment with every supported kind of space, registered as `rooms/Locks-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Locks(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Turn the named wheel to the named place; each right turn pays 1, and three of them end the episode."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at = fails_at
        self.action_space = spaces.MultiDiscrete([2, 3])
        self.observation_space = spaces.Dict(
            {
                "bits": spaces.MultiBinary(2),
                "wheel": spaces.Discrete(2, start=5),
                "gauges": spaces.Box(-np.inf, np.inf, (2,), np.float64),
                "place": spaces.MultiDiscrete([3]),
                "right": spaces.Box(0, 3, (1,), np.int8),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.right = self.time = 0
        return self._show(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        if self.time == self.fails_at:
            raise RuntimeError("the lock is stuck")
        right = bool((action == self.wanted).all())
        self.right += right
        self.time += 1
        return self._show(), float(right), self.right == 3, False, {}

    def _show(self) -> dict[str, Any]:
        self.wanted = self.np_random.integers([2, 3])
        return {
            "bits": np.array([self.right > 0, self.right > 1], dtype=np.int8),
            "wheel": np.int64(5 + self.wanted[0]),
            "gauges": self.np_random.normal(size=2),
            "place": self.wanted[1:],
            "right": np.array([self.right], dtype=np.int8),
        }


if "rooms/Locks-v0" not in gymnasium.registry:
    gymnasium.register("rooms/Locks-v0", "rooms:Locks", max_episode_steps=6, reward_threshold=3)
