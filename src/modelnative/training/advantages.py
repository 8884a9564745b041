"""What an algorithm adds: how much better each action was than expected.

Every function takes a rollout and gives advantages and value targets, float [T, n]; entries that are not free are
never used. Episodes are whole and the horizon is a rule of the task, so that nothing is bootstrapped past the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.training.config import LossConfig
from modelnative.training.rollout import Rollout

LEAST = 0.1  # deviation of the advantages, in units of reward


def advantages(algorithm: str, rollout: Rollout, config: LossConfig) -> tuple[Tensor, Tensor]:
    """The advantages of `algorithm` and the targets of the critic, both float [T, n]."""
    if algorithm in ("ppo", "a2c"):
        advantage = generalised(rollout, config.gamma, config.gae_lambda)
        return normalised(advantage, rollout.free), advantage + rollout.value
    returns = to_go(rollout.reward, config.gamma)
    if algorithm == "grpo":
        return group_relative(rollout, config.num_generations, config.scale_rewards), returns
    if algorithm == "rloo":
        return normalised(leave_one_out(rollout, config.num_generations), rollout.free, centre=False), returns
    return normalised(returns - stage_mean(rollout, returns), rollout.free, centre=False), returns


def to_go(reward: Tensor, gamma: float) -> Tensor:
    """Discounted sums of the rewards from each time on: float [T, n].

    Example:
        >>> to_go(torch.tensor([[0.0], [0.0], [1.0]]), 0.5)[:, 0].tolist()
        [0.25, 0.5, 1.0]
    """
    sums = reward.clone()
    for t in range(len(reward) - 2, -1, -1):
        sums[t] += gamma * sums[t + 1]
    return sums


def generalised(rollout: Rollout, gamma: float, trace: float) -> Tensor:
    """Generalised advantage estimation (Schulman et al., 2016, eq. 16)."""
    value = rollout.value * rollout.running
    error = rollout.reward - value
    error[:-1] += gamma * value[1:]
    return to_go(error * rollout.running, gamma * trace)


def episode_return(rollout: Rollout) -> Tensor:
    """The sum of the rewards after the hint, float [n]."""
    return (rollout.reward * rollout.free).sum(0)


def group_relative(rollout: Rollout, group: int, scale: bool) -> Tensor:
    """Return minus the mean of its group, optionally over its standard deviation (GRPO, Shao et al., 2024, eq. 3).

    The `group` episodes of one problem lie side by side.
    """
    returns = episode_return(rollout).view(-1, group)
    advantage = returns - returns.mean(1, keepdim=True)
    if scale:
        advantage = advantage / (returns.std(1, keepdim=True) + 1e-4)
    return advantage.view(1, -1).expand_as(rollout.reward)


def leave_one_out(rollout: Rollout, group: int) -> Tensor:
    """Return minus the mean of the others of its group (RLOO, Kool et al., 2019; Ahmadian et al., 2024)."""
    returns = episode_return(rollout).view(-1, group)
    others = (returns.sum(1, keepdim=True) - returns) / (group - 1)
    return (returns - others).view(1, -1).expand_as(rollout.reward)


def stage_mean(rollout: Rollout, returns: Tensor) -> Tensor:
    """REINFORCE's baseline (Williams, 1992): the mean return of each stage's free tokens, laid out as `returns`."""
    stage = rollout.problems.stage.expand_as(returns)[rollout.free]
    stages = int(rollout.problems.stage.max()) + 1
    total = torch.zeros(stages, device=returns.device).index_add(0, stage, returns[rollout.free])
    count = torch.bincount(stage, minlength=stages).clamp_min(1)
    return (total / count)[rollout.problems.stage].expand_as(returns)


def normalised(advantage: Tensor, free: Tensor, centre: bool = True) -> Tensor:
    """Divided by the standard deviation over the free tokens, after their mean is taken off if `centre`.

    Where hardly anything fails the deviation is the critic's error, and dividing by it would train on noise: it counts
    as `LEAST` at least.
    """
    seen = advantage[free]
    if len(seen) < 2:
        return advantage
    deviation = seen.std() if centre else seen.square().mean().sqrt()
    return (advantage - (seen.mean() if centre else 0.0)) / deviation.clamp_min(LEAST)
