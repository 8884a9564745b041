"""skrl's recurrent PPO on the batched world: PPO_RNN with its RandomMemory, driven by its StepTrainer.

What makes that structure: the trainer steps a vectorized environment and hands every transition to the agent, which
stores it in preallocated float tensors [steps, environments], the hidden state of every step included. After `steps`
transitions the agent computes advantages, gathers minibatches of whole sequences in the order of the environments, and
updates. skrl leaves the network to its user: the model here is the one of its documentation for GRUs, with one trunk
for policy and value, and the time loop always split at every step, because some episode ends at nearly every step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from skrl.agents.torch.ppo import PPO_RNN
from skrl.envs.wrappers.torch import Wrapper
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import StepTrainer
from torch import Tensor, nn
from worlds import ACTIONS, HIDDEN, PLACES, Peer, Reader, Stages, TensorWorld


class CalculatorEnv(Wrapper):
    """The tensor world behind skrl's interface: rewards and ends are [n, 1]."""

    observation_space = Box(0, ACTIONS - 1, (len(PLACES),), np.float32)
    action_space = Discrete(ACTIONS)

    def __init__(self, n: int, stages: Stages, seed: int) -> None:
        super().__init__(TensorWorld(n, stages, seed))
        self.never = torch.zeros(n, 1, dtype=torch.bool)

    @property
    def num_envs(self) -> int:
        return len(self.never)

    def reset(self) -> tuple[Tensor, dict[str, Any]]:
        return self._env.reset(), {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        observation, reward, ended = self._env.step(actions[:, 0])
        return observation, reward[:, None], ended[:, None], self.never, {}

    def state(self) -> None:
        return None

    def render(self) -> None:
        pass

    def close(self) -> None:
        pass


class ActorCritic(CategoricalMixin, DeterministicMixin, Model):
    """Embeddings, a GRU, an actor and a critic; the critic reads what the actor's pass has left, as skrl's docs do."""

    def __init__(self, env: CalculatorEnv, steps: int) -> None:
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
        Model.__init__(self, **spaces, device="cpu")
        CategoricalMixin.__init__(self, unnormalized_log_prob=True, role="policy")
        DeterministicMixin.__init__(self, clip_actions=False, role="value")
        self.steps, self.n = steps, env.num_envs
        self.reader = Reader()
        self.gru = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.actor, self.critic = nn.Linear(HIDDEN, ACTIONS), nn.Linear(HIDDEN, 1)
        nn.init.orthogonal_(self.actor.weight, 0.01)
        nn.init.orthogonal_(self.critic.weight, 1.0)
        self.left: Tensor | None = None

    def get_specification(self) -> dict[str, Any]:
        return {"rnn": {"sequence_length": self.steps, "sizes": [(1, self.n, HIDDEN)]}}

    def act(self, inputs: dict[str, Any], *, role: str = "") -> tuple[Tensor, dict[str, Any]]:
        mixin = CategoricalMixin if role == "policy" else DeterministicMixin
        return mixin.act(self, inputs, role=role)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        if role == "policy":
            self.left, memory = self.remember(inputs["observations"], inputs["rnn"][0], inputs.get("terminated"))
            return self.actor(self.left), {"rnn": [memory]}
        hidden = self.left
        if hidden is None:
            hidden, _ = self.remember(inputs["observations"], inputs["rnn"][0], None)
        self.left = None
        return self.critic(hidden), {}

    def remember(self, observation: Tensor, memory: Tensor, ended: Tensor | None) -> tuple[Tensor, Tensor]:
        """Hidden states [n·T, 64] of n·T observations, sequence by sequence; T is 1 outside of updates.

        `memory` is [1, n·T, 64], of which the first of each sequence counts; `ended` [n·T, 1] forgets what was before.
        """
        x = self.reader(observation.long()).relu()  # skrl stores all observations as floats
        if ended is None:
            hidden, memory = self.gru(x[:, None], memory)
            return hidden[:, 0], memory
        x, alive = x.view(-1, self.steps, HIDDEN), (~ended).float().view(1, -1, self.steps, 1)
        memory = memory.view(1, -1, self.steps, HIDDEN)[:, :, 0].contiguous()
        hidden = []
        for t in range(self.steps):
            h, memory = self.gru(x[:, t : t + 1], memory)
            memory = memory * alive[:, :, t]
            hidden.append(h)
        return torch.cat(hidden, 1).flatten(0, 1), memory


class Agent(PPO_RNN):
    """PPO_RNN that stores the hidden state before each step, from which the update unrolls.

    In skrl 2.1.1 its two dictionaries of states are one after the first step, so that it stores the state after the
    step: the update reads the first observation of a rollout twice. A copy of the dictionary keeps them apart.
    """

    def act(self, observations: Tensor, states: Tensor | None, **when: int) -> tuple[Tensor, dict[str, Any]]:
        self._rnn_final_states = dict(self._rnn_final_states)
        return super().act(observations, states, **when)


class SKRL(Peer):
    """One training.

    Args:
        stages: where problems are drawn from.
        seed: of weights, problems and actions.
        environments: how many, always batched; steps: of every environment in a rollout.
        minibatches, epochs: of an update.
        learning_rate, gamma, trace, clip, entropy, gradient_norm: as in PPO.
    """

    def __init__(
        self,
        stages: Stages,
        seed: int = 0,
        *,
        environments: int = 512,
        steps: int = 24,
        minibatches: int = 4,
        epochs: int = 1,
        learning_rate: float = 2.5e-3,
        gamma: float = 1.0,
        trace: float = 0.95,
        clip: float = 0.2,
        entropy: float = 0.01,
        gradient_norm: float = 0.5,
    ) -> None:
        torch.manual_seed(seed)
        self.steps, self.frames = steps, environments * steps
        env = CalculatorEnv(environments, stages, seed)
        self.model = ActorCritic(env, steps)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.agent = Agent(
            models={"policy": self.model, "value": self.model},
            memory=RandomMemory(memory_size=steps, num_envs=environments, device="cpu"),
            observation_space=env.observation_space,
            action_space=env.action_space,
            device="cpu",
            cfg={
                "rollouts": steps,
                "learning_epochs": epochs,
                "mini_batches": minibatches,
                "discount_factor": gamma,
                "gae_lambda": trace,
                "learning_rate": learning_rate,
                "grad_norm_clip": gradient_norm,
                "ratio_clip": clip,
                "value_clip": clip,
                "entropy_loss_scale": entropy,
                "value_loss_scale": 0.5,
                "experiment": {"write_interval": 0, "checkpoint_interval": 0},
            },
        )
        quiet = {"headless": True, "disable_progressbar": True, "close_environment_at_exit": False}
        self.trainer = StepTrainer(env=env, agents=self.agent, cfg=quiet)

    def update(self) -> int:
        for _ in range(self.steps):  # the agent learns in the last of them
            self.trainer.train()
        return self.frames

    def begin(self, n: int) -> Tensor:
        return torch.zeros(1, n, HIDDEN)

    @torch.no_grad()
    def act(self, observation: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        hidden, memory = self.model.remember(observation, memory, None)
        return self.model.actor(hidden).argmax(-1), memory
