"""sb3-contrib's RecurrentPPO, on eight Python environments as it is usually run, and on one batched world."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium_world import CalculatorEnv
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor
from worlds import HIDDEN, Peer, Reader, Stages, TensorWorld


class Embeddings(BaseFeaturesExtractor):
    """The shared encoding in front of the LSTM."""

    def __init__(self, observation_space: Box) -> None:
        super().__init__(observation_space, HIDDEN)
        self.reader = Reader()

    def forward(self, observations: Tensor) -> Tensor:
        return self.reader(observations.long()).relu()  # SB3 hands every box over as floats


class BatchedVecEnv(VecEnv):
    """The tensor world behind SB3's interface, which is NumPy and a dictionary for each environment."""

    def __init__(self, n: int, stages: Stages, seed: int) -> None:
        super().__init__(n, CalculatorEnv.observation_space, CalculatorEnv.action_space)
        self.world = TensorWorld(n, stages, seed)
        self.nothing: list[dict[str, Any]] = [{} for _ in range(n)]

    def reset(self) -> np.ndarray:
        return self.world.reset().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = torch.from_numpy(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observation, reward, ended = self.world.step(self.actions)
        return observation.numpy(), reward.numpy(), ended.numpy(), self.nothing

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class SB3(Peer):
    """One training.

    Args:
        stages: where problems are drawn from.
        seed: of weights, problems and actions.
        environments: how many; world: `python` or `tensor`.
        steps: of every environment in a rollout.
        minibatches, epochs: of an update.
        critic: `shared` reads the actor's LSTM, without gradient; `own` is SB3's default, a second LSTM.
        learning_rate, gamma, trace, clip, entropy, gradient_norm: as in PPO.
    """

    def __init__(
        self,
        stages: Stages,
        seed: int = 0,
        *,
        environments: int = 8,
        world: str = "python",
        steps: int = 128,
        minibatches: int = 4,
        epochs: int = 1,
        critic: str = "shared",
        learning_rate: float = 2.5e-3,
        gamma: float = 1.0,
        trace: float = 0.95,
        clip: float = 0.2,
        entropy: float = 0.01,
        gradient_norm: float = 0.5,
    ) -> None:
        if world == "tensor":
            env: VecEnv = BatchedVecEnv(environments, stages, seed)
        else:
            makers = [lambda i=i: CalculatorEnv(stages, seed * environments + i) for i in range(environments)]
            env = DummyVecEnv(makers)
        self.frames = environments * steps
        self.model = RecurrentPPO(
            "MlpLstmPolicy",
            env,
            learning_rate=learning_rate,
            n_steps=steps,
            batch_size=self.frames // minibatches,
            n_epochs=epochs,
            gamma=gamma,
            gae_lambda=trace,
            clip_range=clip,
            ent_coef=entropy,
            max_grad_norm=gradient_norm,
            seed=seed,
            device="cpu",
            policy_kwargs={
                "lstm_hidden_size": HIDDEN,
                "shared_lstm": critic == "shared",
                "enable_critic_lstm": critic != "shared",
                "net_arch": [],
                "features_extractor_class": Embeddings,
            },
        )
        self.parameters = sum(p.numel() for p in self.model.policy.parameters() if p.requires_grad)

    def update(self) -> int:
        # The timesteps of one rollout: `learn` then plays and trains exactly once, and goes on where it stopped.
        self.model.learn(self.frames, reset_num_timesteps=False)
        return self.frames

    def begin(self, n: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, n, HIDDEN), torch.zeros(1, n, HIDDEN)

    @torch.no_grad()
    def act(self, observation: Tensor, memory: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        first = torch.zeros(len(observation))
        distribution, memory = self.model.policy.get_distribution(observation.float(), memory, first)
        return distribution.get_actions(deterministic=True), memory
