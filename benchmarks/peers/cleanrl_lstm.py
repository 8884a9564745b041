"""LSTM PPO in CleanRL's structure (Huang et al., 2022: `ppo_atari_lstm.py`), written anew; no code is copied.

What makes that structure: preallocated buffers [steps, environments]; an LSTM that carries its state across the ends of
rollouts and is reset by the done flag inside a Python loop over time, in the rollout and in the update; minibatches of
whole environments; orthogonal initialisation, normalised advantages, clipped value loss, one loss, Adam. Differences:
the input is a sum of embeddings, not a convolution, and distributions are not validated, which costs CleanRL time.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium_world import CalculatorEnv
from torch import Tensor, nn
from torch.distributions import Categorical
from worlds import ACTIONS, HIDDEN, PLACES, Peer, Reader, Stages, TensorWorld

Memory = tuple[Tensor, Tensor]


def orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    """The layer, with orthogonal weights and without bias."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class Agent(nn.Module):
    """Embeddings, a linear layer, an LSTM, an actor and a critic."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = Reader()
        self.inner = orthogonal(nn.Linear(HIDDEN, HIDDEN), 2**0.5)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN)
        for name, parameter in self.lstm.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            else:
                nn.init.orthogonal_(parameter)
        self.actor = orthogonal(nn.Linear(HIDDEN, ACTIONS), 0.01)
        self.critic = orthogonal(nn.Linear(HIDDEN, 1), 1.0)

    def remember(self, observation: Tensor, memory: Memory, first: Tensor) -> tuple[Tensor, Memory]:
        """Hidden states [T·n, 64] of T·n observations, time first; `first` [T·n] forgets what was before."""
        n = memory[0].shape[1]
        x = self.inner(self.reader(observation).relu()).relu().view(-1, n, HIDDEN)
        hidden = []
        for x_t, first_t in zip(x, first.view(-1, n), strict=True):
            kept = (1.0 - first_t)[None, :, None]
            h, memory = self.lstm(x_t[None], (kept * memory[0], kept * memory[1]))
            hidden.append(h)
        return torch.cat(hidden).flatten(0, 1), memory


class GymnasiumWorlds:
    """Python environments in Gymnasium's vector, seen as tensors."""

    def __init__(self, n: int, stages: Stages, seed: int) -> None:
        makers = [lambda i=i: CalculatorEnv(stages, seed * n + i) for i in range(n)]
        self.vector: Any = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)

    def reset(self) -> Tensor:
        return torch.from_numpy(self.vector.reset()[0])

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        observation, reward, ended, _, _ = self.vector.step(action.numpy())
        return torch.from_numpy(observation), torch.from_numpy(reward).float(), torch.from_numpy(ended)


class CleanRL(Peer):
    """One training.

    Args:
        stages: where problems are drawn from.
        seed: of weights, problems and actions.
        environments: how many; world: `python` or `tensor`.
        steps: of every environment in a rollout.
        minibatches, epochs: of an update.
        learning_rate, gamma, trace, clip, entropy, gradient_norm: as in PPO.
    """

    def __init__(
        self,
        stages: Stages,
        seed: int = 0,
        *,
        environments: int = 512,
        world: str = "tensor",
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
        Categorical.set_default_validate_args(False)
        torch.manual_seed(seed)
        self.n, self.steps, self.minibatches, self.epochs = environments, steps, minibatches, epochs
        self.gamma, self.trace, self.clip = gamma, trace, clip
        self.entropy, self.gradient_norm = entropy, gradient_norm
        self.world = (TensorWorld if world == "tensor" else GymnasiumWorlds)(environments, stages, seed)
        self.agent = Agent()
        self.parameters = sum(p.numel() for p in self.agent.parameters())
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=learning_rate, eps=1e-5)
        shape = (steps, environments)
        self.observations = torch.zeros((*shape, len(PLACES)), dtype=torch.int64)
        self.actions = torch.zeros(shape, dtype=torch.int64)
        self.log_probs, self.rewards, self.firsts, self.values = (torch.zeros(shape) for _ in range(4))
        self.next_observation, self.next_first = self.world.reset(), torch.zeros(environments)
        self.memory = self.begin(environments)

    def update(self) -> int:
        start = tuple(m.clone() for m in self.memory)
        with torch.no_grad():
            for t in range(self.steps):
                self.observations[t], self.firsts[t] = self.next_observation, self.next_first
                hidden, self.memory = self.agent.remember(self.next_observation, self.memory, self.next_first)
                distribution = Categorical(logits=self.agent.actor(hidden))
                action = distribution.sample()
                self.values[t] = self.agent.critic(hidden)[:, 0]
                self.actions[t], self.log_probs[t] = action, distribution.log_prob(action)
                self.next_observation, self.rewards[t], ended = self.world.step(action)
                self.next_first = ended.float()
            advantages = self.advantages()
        self.learn(start, advantages, advantages + self.values)
        return self.steps * self.n

    def advantages(self) -> Tensor:
        """Generalised advantage estimation, float [steps, n]."""
        hidden, _ = self.agent.remember(self.next_observation, self.memory, self.next_first)
        value, alive = self.agent.critic(hidden)[:, 0], 1.0 - self.next_first
        advantages, last = torch.zeros_like(self.rewards), torch.zeros(self.n)
        for t in reversed(range(self.steps)):
            error = self.rewards[t] + self.gamma * value * alive - self.values[t]
            advantages[t] = last = error + self.gamma * self.trace * alive * last
            value, alive = self.values[t], 1.0 - self.firsts[t]
        return advantages

    def learn(self, start: tuple[Tensor, ...], advantages: Tensor, returns: Tensor) -> None:
        """Gradient steps on minibatches of whole environments."""
        for _ in range(self.epochs):
            for chosen in torch.randperm(self.n).chunk(self.minibatches):

                def rows(x: Tensor, chosen: Tensor = chosen) -> Tensor:
                    return x[:, chosen].flatten(0, 1)

                memory = (start[0][:, chosen], start[1][:, chosen])
                hidden, _ = self.agent.remember(rows(self.observations), memory, rows(self.firsts))
                distribution = Categorical(logits=self.agent.actor(hidden))
                value = self.agent.critic(hidden)[:, 0]
                ratio = (distribution.log_prob(rows(self.actions)) - rows(self.log_probs)).exp()
                advantage = rows(advantages)
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                bounded = ratio.clamp(1 - self.clip, 1 + self.clip)
                policy_loss = -torch.minimum(ratio * advantage, bounded * advantage).mean()
                old, target = rows(self.values), rows(returns)
                near = old + (value - old).clamp(-self.clip, self.clip)
                value_loss = 0.5 * torch.maximum((value - target).square(), (near - target).square()).mean()
                loss = policy_loss + 0.5 * value_loss - self.entropy * distribution.entropy().mean()
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.agent.parameters(), self.gradient_norm)
                self.optimizer.step()

    def begin(self, n: int) -> Memory:
        return torch.zeros(1, n, HIDDEN), torch.zeros(1, n, HIDDEN)

    @torch.no_grad()
    def act(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        hidden, memory = self.agent.remember(observation, memory, torch.zeros(len(observation)))
        return self.agent.actor(hidden).argmax(-1), memory
