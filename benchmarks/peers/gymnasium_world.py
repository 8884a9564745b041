"""The plain world as a Gymnasium environment, for the peers that take one episode at a time."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from worlds import ACTIONS, PLACES, PlainWorld, Stages


class CalculatorEnv(gymnasium.Env[np.ndarray, int]):
    """An episode is one training problem.

    The observation is a box of token numbers: libraries turn a multi-discrete one into one-hots of 291 places,
    which costs more than the embeddings of `Reader`.
    """

    observation_space = gymnasium.spaces.Box(0, max(PLACES) - 1, (len(PLACES),), np.int64)
    action_space = gymnasium.spaces.Discrete(ACTIONS)

    def __init__(self, stages: Stages, seed: int) -> None:
        self.world = PlainWorld(stages, seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.array(self.world.reset()), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, reward, ended = self.world.step(int(action))
        return np.array(observation), reward, ended, False, {}
