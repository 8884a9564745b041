"""What an algorithm adds: how much better each action was than expected. All else is shared by all of them.

Episodes are whole. The horizon is a rule of the task, so nothing is bootstrapped past the end, except where the task
says that a time limit is none of its rules (`Task.truncated`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from modelnative.training.config import LossConfig
from modelnative.training.rollout import Rollout

MIN_DEVIATION = 0.1  # of the advantages, as a share of the largest return


class Algorithm:
    """The base class of algorithms. A subclass says what the advantages are; see `own_algorithm.py` in the examples.

    Args:
        config: the numbers of the loss.

    Attributes:
        recipe: fields of `TrainConfig` that this algorithm needs, as nested dictionaries; see `recipe`.
        learning_rate_factor: of the core's learning rate; an on-policy step without clipping must be smaller.
        grouped: whether `config.num_generations` episodes of every problem are played, side by side.
        rounds: how often a batch is drawn at most to find episodes that `keep` accepts.
    """

    recipe: ClassVar[dict[str, Any]] = {}
    learning_rate_factor: ClassVar[float] = 1.0
    grouped: ClassVar[bool] = False
    rounds: ClassVar[int] = 1

    def __init__(self, config: LossConfig) -> None:
        self.config = config

    @property
    def num_generations(self) -> int:
        """Episodes of each problem."""
        return self.config.num_generations if self.grouped else 1

    def advantages(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Advantages and targets of the value, both float [T, n]; outside `loss_mask` they are not used."""
        raise NotImplementedError

    def keep(self, rollout: Rollout) -> Tensor | None:
        """Which episodes are worth learning from, bool [n]; None for all.

        With `rounds` above 1 the others are replaced by newly drawn ones, as far as that many rounds bring them.
        """
        return None

    def loss_denominator(self, tokens: Tensor, episodes: int, horizon: int) -> Tensor | float:
        """What the sums of a minibatch's loss are divided by; its number of tokens (int64 []) by default."""
        return tokens.clamp_min(1)


def discounted_returns(reward: Tensor, gamma: float) -> Tensor:
    """Discounted sums of the rewards from each time on: float [T, n].

    Example:
        >>> discounted_returns(torch.tensor([[0.0], [0.0], [1.0]]), 0.5)[:, 0].tolist()
        [0.25, 0.5, 1.0]
    """
    sums = reward.clone()
    for t in range(len(reward) - 2, -1, -1):
        sums[t] += gamma * sums[t + 1]
    return sums


def generalized_advantages(rollout: Rollout, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantage estimation (Schulman et al., 2016, eq. 16): float [T, n]."""
    value = rollout.value * rollout.running
    error = rollout.reward - value
    error[:-1] += gamma * value[1:]
    if bool(rollout.bootstrap.any()):
        last, episode = rollout.length - 1, torch.arange(len(rollout.bootstrap), device=value.device)
        error[last, episode] += gamma * rollout.bootstrap
    return discounted_returns(error * rollout.running, gamma * gae_lambda)


def episode_returns(rollout: Rollout) -> Tensor:
    """The sum of the rewards after the hint, float [n]."""
    return (rollout.reward * rollout.loss_mask).sum(0)


def largest_return(rollout: Rollout, gamma: float = 1.0) -> Tensor:
    """The largest reward or discounted return after the hints, without its sign: float []; 1 where all are 0."""
    rewards = rollout.reward * rollout.loss_mask
    discount = gamma ** torch.arange(len(rewards), device=rewards.device)[:, None]
    largest = torch.maximum(rewards.abs().amax(), (discount * rewards).sum(0).abs().amax())
    return torch.where(largest > 0, largest, 1.0)


def in_reward_units(rollout: Rollout, gamma: float = 1.0, scale: float = 0.0) -> Rollout:
    """The rollout with rewards times `scale`; if that is 0, over a power of ten if returns are above 31 or below 0.03.

    A critic learns to predict numbers near 1, and neither thousands nor millionths, in the time that a policy takes.
    """
    if scale:
        return replace(rollout, reward=rollout.reward * scale)
    exponent = round(math.log10(float(largest_return(rollout, gamma))))
    return rollout if abs(exponent) < 2 else replace(rollout, reward=rollout.reward / 10.0**exponent)


def group_advantages(rollout: Rollout, num_generations: int, scale: bool) -> Tensor:
    """Return minus the mean of its group, optionally over its deviation (GRPO, Shao et al., 2024, eq. 3): [T, n].

    The episodes of one problem lie side by side. A deviation below 1e-4 of the largest return of the group is rounding,
    and dividing by it would train on noise.
    """
    returns = episode_returns(rollout).view(-1, num_generations)
    advantage = returns - returns.mean(1, keepdim=True)
    if scale:
        least = 1e-4 * returns.abs().amax(1, keepdim=True).clamp_min(1e-30)
        advantage = advantage / (returns.std(1, keepdim=True) + least)
    return advantage.view(1, -1).expand_as(rollout.reward)


def leave_one_out(rollout: Rollout, num_generations: int) -> Tensor:
    """Return minus the mean of the others of its group (RLOO, Kool et al., 2019; Ahmadian et al., 2024): [T, n]."""
    returns = episode_returns(rollout).view(-1, num_generations)
    others = (returns.sum(1, keepdim=True) - returns) / (num_generations - 1)
    return (returns - others).view(1, -1).expand_as(rollout.reward)


def stage_baseline(rollout: Rollout, returns: Tensor) -> Tensor:
    """The mean return of each stage's tokens in the loss (REINFORCE, Williams, 1992), laid out as `returns`."""
    stage = rollout.problems.stage.expand_as(returns)[rollout.loss_mask]
    stages = int(rollout.problems.stage.max()) + 1
    total = torch.zeros(stages, device=returns.device).index_add(0, stage, returns[rollout.loss_mask])
    count = torch.bincount(stage, minlength=stages).clamp_min(1)
    return (total / count)[rollout.problems.stage].expand_as(returns)


def normalize(advantage: Tensor, mask: Tensor, center: bool = True, largest: Tensor | float = 1.0) -> Tensor:
    """Advantages over their standard deviation on the masked tokens, after their mean is subtracted if `center`.

    Where hardly anything fails the deviation is the critic's error, and dividing by it would train on noise: it counts
    as `MIN_DEVIATION` times the `largest` return at least.
    """
    seen = advantage[mask]
    if len(seen) < 2:
        return advantage
    deviation = seen.std() if center else seen.square().mean().sqrt()
    return (advantage - (seen.mean() if center else 0.0)) / deviation.clamp_min(MIN_DEVIATION * largest)
