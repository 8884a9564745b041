"""One loss for all algorithms: clipped surrogate, self-imitation, imitation of hints, value, entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from modelnative.native import operator
from modelnative.policies.heads import TINY
from modelnative.training.config import LossConfig


@dataclass
class LossTokens:
    """The columns of a rollout, [N] each, and which M of their tokens are meant.

    Attributes:
        action: int64, taken.
        behavior_log_prob: float, the log-probability it was taken with, exploration included.
        advantage, target: float, how much better it was than expected, and the target of the value.
        loss_mask: bool, the policy chose it; the policy gradient, the value and the entropy see these.
        explored: bool, it was drawn with exploration.
        hint_mask: bool, a hint wrote it and it is to be imitated.
        where: int64 [M], the tokens that are meant; None for all, M = N.
    """

    action: Tensor
    behavior_log_prob: Tensor
    advantage: Tensor
    target: Tensor
    loss_mask: Tensor
    explored: Tensor
    hint_mask: Tensor
    where: Tensor | None = None

    def select(self) -> LossTokens:
        """The same with columns of the M tokens that are meant."""
        if self.where is None:
            return self
        *columns, where = vars(self).values()
        return LossTokens(*(column.index_select(0, where) for column in columns))


@dataclass
class LossWeights:
    """The numbers of the loss; as in `LossConfig`, and `count`, what sums over tokens are divided by."""

    clip_low: float
    clip_high: float
    imitation: float
    hint: float
    value: float
    entropy: float
    count: float

    @classmethod
    def of(cls, config: LossConfig, entropy: float, count: float) -> LossWeights:
        """The weights of a configuration, with the present weight of the entropy."""
        clips = (config.clip_low, config.clip_high)
        return cls(*clips, config.imitation_weight, config.hint_weight, config.value_weight, entropy, count)


class LossTerms(NamedTuple):
    """The loss, its parts and two sums, scalar tensors. Those of parts of a minibatch add up.

    Attributes:
        log_prob_gap: what the log-probabilities of the actions differ from those stored, without their signs, summed
            over the tokens in the policy gradient that were not explored.
        log_probs: how many these are. Before the first step of an update, the first over this is only rounding.
    """

    loss: Tensor
    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    approximate_kl: Tensor
    clip_fraction: Tensor
    log_prob_gap: Tensor
    log_probs: Tensor


@operator("policy_loss")
def policy_loss(logits: Tensor, value: Tensor, tokens: LossTokens, weights: LossWeights) -> Tensor:
    """The loss of given actions under a fresh forward pass, and its parts in the order of `LossTerms`: float [8].

    Only the first, the loss, is to be differentiated.

    Args:
        logits, value: float [M, V] and [M], of the policy now.
        tokens: what was done.
        weights: what counts how much.
    """
    tokens = tokens.select()
    log_probs = logits.log_softmax(-1).clamp_min(torch.tensor(TINY).log().item())
    log_prob = log_probs.gather(-1, tokens.action[:, None])[:, 0]
    # What stands outside the mask may be anything, even NaN, and must not reach the gradient.
    difference = torch.where(tokens.loss_mask, log_prob - tokens.behavior_log_prob, 0.0)
    ratio = difference.exp()
    advantage = torch.where(tokens.loss_mask, tokens.advantage, 0.0)
    gain, clipped = clipped_surrogate(ratio, advantage, weights)
    gain = self_imitation(gain, log_prob, advantage, tokens.explored, weights)
    hinted = torch.where(tokens.hint_mask, weights.hint * log_prob, 0.0)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    error = value - torch.where(tokens.loss_mask, tokens.target, 0.0)

    def mean(x: Tensor) -> Tensor:
        return torch.where(tokens.loss_mask, x, 0.0).sum() / weights.count

    policy = -mean(gain) - hinted.sum() / weights.count
    loss = policy + weights.value * mean(error.square()) - weights.entropy * mean(entropy)
    approximate_kl = mean(ratio - 1 - difference)  # k3 of Schulman (2020): unbiased and never negative
    own = tokens.loss_mask & ~tokens.explored
    sums = (torch.where(own, difference.abs(), 0.0).sum(), own.to(value.dtype).sum())
    parts = (policy, mean(error.square()), mean(entropy), approximate_kl, mean(clipped.to(value.dtype)), *sums)
    return torch.stack([loss, *(part.detach() for part in parts)])


def clipped_surrogate(ratio: Tensor, advantage: Tensor, weights: LossWeights) -> tuple[Tensor, Tensor]:
    """What the policy gradient ascends (PPO, Schulman et al., 2017, eq. 7), and where it was clipped; each [M].

    The ratio is against the probability with which the action was really drawn, exploration included, so that the
    surrogate is unbiased. With both clips at 0 nothing is clipped.
    """
    gain = ratio * advantage
    if not (weights.clip_low or weights.clip_high):
        return gain, torch.zeros_like(ratio, dtype=torch.bool)
    bounded = ratio.clamp(1 - weights.clip_low, 1 + weights.clip_high)
    return torch.minimum(gain, bounded * advantage), ratio != bounded


def self_imitation(gain: Tensor, log_prob: Tensor, advantage: Tensor, explored: Tensor, weights: LossWeights) -> Tensor:
    """The gain, with explored actions that did better than expected imitated (Oh et al., 2018, eq. 2): float [M].

    Where the policy gives a good explored action next to no probability, its ratio vanishes and the gradient with it.
    Its gain is the advantage times its log-probability instead.
    """
    if not weights.imitation:
        return gain
    better = explored & (advantage > 0)
    return torch.where(better, weights.imitation * advantage * log_prob, gain)
