"""One loss for all algorithms: clipped surrogate, self-imitation, value, entropy; and imitation of hints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelnative import native
from modelnative.policies.policy import Thought
from modelnative.training.config import LossConfig


@dataclass
class Terms:
    """The loss and what to report of it; scalar tensors, detached but for `loss`. Those of parts of a batch add up."""

    loss: Tensor
    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    approximate_kl: Tensor
    clip_fraction: Tensor

    def vector(self) -> Tensor:
        """All of them, detached: float [6]."""
        return torch.stack([getattr(self, field.name).detach() for field in fields(self)])

    @classmethod
    def none(cls, device: torch.device) -> Tensor:
        """The `vector` of no episodes at all."""
        return torch.zeros(len(fields(cls)), device=device)

    @classmethod
    def of(cls, vector: Tensor) -> Terms:
        """The inverse of `vector`."""
        return cls(*vector)


def surrogate(
    thought: Thought | native.Choices,
    action: Tensor,
    behavior_log_prob: Tensor,
    advantage: Tensor,
    target: Tensor,
    free: Tensor,
    explored: Tensor,
    config: LossConfig,
    entropy_weight: float,
    count: Tensor | None = None,
    where: Tensor | None = None,
    forced: Tensor | None = None,
) -> Terms:
    """The loss of given actions under a fresh forward pass; all tensors are of the same shape, such as [T, m].

    Only free tokens enter, and those that are `forced`, bool, if it is given: -log π(a) times `hint_weight` (behavior
    cloning beside the policy gradient: Rajeswaran et al., 2018, eq. 5). `count` is the number of all these tokens in
    the minibatch of which these are a part; by default they are all. With `where`, int64 [M], the columns are longer,
    and these of their rows are meant.

    The ratio is against the probability with which the action was really drawn, exploration included, so the
    surrogate is unbiased (PPO, Schulman et al., 2017, eq. 7). Where the policy gives a good explored action next to no
    probability that ratio also vanishes, and with it the gradient; such tokens are imitated instead: -log π(a) times
    the advantage, where it is positive (Oh et al., 2018, eq. 2).
    """
    if isinstance(thought, native.Choices):
        assert count is not None
        given = (action, behavior_log_prob, advantage, target, free, explored, forced)
        clips = (config.clip_low, config.clip_high)
        weights = (*clips, config.imitation_weight, config.hint_weight, config.value_weight, entropy_weight)
        return Terms.of(_judge(thought, given, where, (*weights, float(count))))
    forced = torch.zeros_like(free) if forced is None else forced
    if where is not None:
        columns = (action, behavior_log_prob, advantage, target, free, explored, forced)
        action, behavior_log_prob, advantage, target, free, explored, forced = (
            c.index_select(0, where) for c in columns
        )
    if count is None:
        count = (free | forced).sum().clamp_min(1)

    def mean(x: Tensor) -> Tensor:
        return torch.where(free, x, 0.0).sum() / count

    log_prob = thought.log_probs.gather(-1, action[..., None])[..., 0]
    difference = torch.where(free, log_prob - behavior_log_prob, 0.0)  # a NaN outside must not reach the gradient
    ratio = difference.exp()
    gain = ratio * advantage
    clipped = torch.zeros_like(free)
    if config.clip_low or config.clip_high:
        bounded = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
        gain = torch.minimum(gain, bounded * advantage)
        clipped = ratio != bounded
    if config.imitation_weight:
        gain = torch.where(explored & (advantage > 0), config.imitation_weight * advantage * log_prob, gain)
    entropy = mean(-(thought.log_probs.exp() * thought.log_probs).sum(-1))
    hinted = torch.where(forced, config.hint_weight * log_prob, 0.0).sum() / count
    policy_loss = -mean(gain) - hinted
    value_loss = mean((thought.value - target).square())
    loss = policy_loss + config.value_weight * value_loss - entropy_weight * entropy
    with torch.no_grad():
        kl = mean(ratio - 1 - difference)  # k3 of Schulman (2020): unbiased and never negative
        fraction = mean(clipped.float())
    return Terms(loss, policy_loss.detach(), value_loss.detach(), entropy.detach(), kl, fraction)


def _judge(
    choices: native.Choices, columns: Sequence[Tensor | None], where: Tensor | None, weights: Sequence[float]
) -> Tensor:
    return _Judge.apply(choices, columns, where, weights, choices.hidden, choices.weight, choices.bias)  # type: ignore[no-untyped-call]


class _Judge(torch.autograd.Function):
    """The terms by the native kernel, float [6]; only the first of them has a gradient."""

    @staticmethod
    def forward(ctx: Any, choices: native.Choices, columns: Any, where: Any, weights: Any, *_: Tensor) -> Tensor:
        terms, gradients = native.judge(choices, columns, where, weights)
        ctx.save_for_backward(*gradients)
        return terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None, *(gradient.mul_(grad[0]) for gradient in ctx.saved_tensors)
