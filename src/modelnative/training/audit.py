"""Checks of one update's numbers that hold exactly in a correct recipe, whatever the task and the policy.

They need tensors alone, so that the same checks serve trainers of other libraries: `mn.audit`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.errors import UserError

MEAN_GAP, MAX_GAP = 1e-4, 1e-2  # of log-probabilities; rounding gives 2e-7 and 3e-6 in float32
LEAST_READ = 1e-9  # change of a log-probability with another problem's context; 0 if nothing of it is read
PAID = 0.9  # what failed episodes may be paid, of what successful ones are
LEAST_SAMPLE = 0.99  # effective sample size as a share of the tokens
MOST_SHARE = 1e-3  # of the advantages' root mean square


@dataclass(frozen=True)
class Check:
    """What a reading means.

    Attributes:
        limit: the most, or the least, that is healthy.
        least: whether `limit` is the least.
        fault: what is wrong beyond it.
        remedy: where to look.
    """

    limit: float
    fault: str
    remedy: str
    least: bool = False


CHECKS: dict[str, Check] = {
    "log_prob_gap_mean": Check(
        MEAN_GAP,
        "the log-probabilities that were stored with the actions are not those of the policy",
        "Compare the engine that samples with the one that learns: weights, temperature, masks, token positions.",
    ),
    "log_prob_gap_max": Check(
        MAX_GAP,
        "the stored log-probability of a token is not that of the policy",
        "Look at the tokens where they differ most: first or last tokens point to a mask that is shifted by one.",
    ),
    "effective_sample_size": Check(
        LEAST_SAMPLE,
        "the actions were drawn from another policy than the one that learns",
        "Copy the weights to the sampler before every batch, and use the temperature that the actions were drawn with.",
        least=True,
    ),
    "tokens_after_the_end": Check(
        0.0,
        "tokens after the end of an episode are in the loss",
        "Shift or rebuild the mask: it must be false after the last action.",
    ),
    "last_actions_left_out": Check(
        0.0,
        "the last action of an episode is not in the loss",
        "Shift the mask: the action that ends an episode must be in it.",
    ),
    "group_mean": Check(
        MOST_SHARE,
        "the advantages of a group do not average to zero",
        "Check the index that assigns episodes to groups: all episodes of a group must have the same problem.",
    ),
    "weight_by_length": Check(
        MOST_SHARE,
        "episodes with the same return have different weights per token",
        "Do not divide by the length of an episode (Dr. GRPO, arXiv 2503.20783).",
    ),
    "verdict_correlation": Check(
        0.0,
        "successful episodes have smaller advantages than failed ones",
        "Check the sign of the advantages and of the loss.",
        least=True,
    ),
    "row_alone": Check(
        MAX_GAP,
        "the prediction for an episode depends on the rest of the batch",
        "Look for a mean over the batch, batch normalization, padding that is attended to, or a state carried over.",
    ),
    "problem_unread": Check(
        LEAST_READ,
        "the network predicts the same for every problem",
        "Look at what the network is given: a prompt that is cut off, or a template without the problem.",
        least=True,
    ),
    "paid_without_success": Check(
        PAID,
        "failed episodes are paid as if they had succeeded",
        "Make the reward the verifier's verdict, or let no sum of other rewards come near it.",
    ),
    "gradient_of_parts": Check(
        MOST_SHARE,
        "the gradient of a batch changes with the parts that it is accumulated from",
        "Divide the sums of all parts by the tokens of the whole batch, instead of averaging the parts' means.",
    ),
    "replayed_differently": Check(
        0.0,
        "the recorded actions give other feedback, rewards or verdicts when they are played again",
        "Record the tokens themselves instead of text that is tokenized again; make the task deterministic.",
    ),
}


@dataclass(frozen=True)
class Alarm:
    """A reading beyond its limit.

    Attributes:
        check: its name in `CHECKS`.
        value: the reading.
        limit: the limit.
        tokens: how many tokens, episodes or groups were read.
    """

    check: str
    value: float
    limit: float
    tokens: int

    @property
    def text(self) -> str:
        """What is wrong and where to look, in two sentences."""
        check = CHECKS[self.check]
        expected = f"at {'least' if check.least else 'most'} {self.limit:g}"
        return f"{check.fault} ({self.check} {self.value:.3g}, expected {expected}). {check.remedy}"


@dataclass(frozen=True)
class Audit:
    """The readings of one batch.

    Attributes:
        readings: by check, the value and how many tokens, episodes or groups it was read from.
    """

    readings: dict[str, tuple[float, int]]

    @property
    def alarms(self) -> list[Alarm]:
        """The readings beyond their limits; a value that is not a number is beyond every limit."""
        found = []
        for name, (value, count) in self.readings.items():
            check = CHECKS[name]
            if not (value >= check.limit if check.least else value <= check.limit):
                found.append(Alarm(name, value, check.limit, count))
        return found


def audit(
    *,
    old_log_probs: Tensor,
    new_log_probs: Tensor,
    mask: Tensor,
    running: Tensor | None = None,
    advantages: Tensor | None = None,
    returns: Tensor | None = None,
    problems: Tensor | None = None,
    groups: Tensor | None = None,
    success: Tensor | None = None,
) -> Audit:
    """Check one batch of any trainer, before its first gradient step.

    Args:
        old_log_probs: float [n, T], the log-probabilities stored when the actions were drawn.
        new_log_probs: float [n, T], those of the policy that learns, from a forward pass before the first step.
        mask: bool [n, T], the tokens in the loss.
        running: bool [n, T], the tokens up to and including the end of the episode; None: not checked.
        advantages: float [n, T], or [n] if all tokens of an episode have the same.
        returns: float [n].
        problems: int64 [n], what identifies the problem (prompt) of each episode, where advantages are relative to the
            mean of a group (GRPO, RLOO). Do not give it for advantages from a critic.
        groups: int64 [n], the group of each episode, as the trainer forms them; likewise.
        success: bool [n], the verifier's verdicts, if they are not `returns > 0`.

    Returns:
        The readings that the given tensors allow, and the alarms among them.

    Raises:
        UserError: shapes do not fit, or no token is in the loss.

    Example:
        >>> import modelnative as mn
        >>> logs, mask = torch.full((2, 3), -1.0), torch.ones(2, 3, dtype=torch.bool)
        >>> mn.audit(old_log_probs=logs, new_log_probs=logs / 1.3, mask=mask).alarms[0].check
        'log_prob_gap_mean'
    """
    mask = mask.bool()
    named = {"old_log_probs": old_log_probs, "new_log_probs": new_log_probs, "running": running}
    for name, tensor in named.items():
        if tensor is not None and tensor.shape != mask.shape:
            raise UserError(f"{name}: shape {list(tensor.shape)} is not allowed; expected {list(mask.shape)}, as mask")
    episodes = {
        "advantages": advantages,
        "returns": returns,
        "problems": problems,
        "groups": groups,
        "success": success,
    }
    for name, tensor in episodes.items():
        if tensor is not None and tensor.shape[:1] != mask.shape[:1]:
            raise UserError(f"{name}: {len(tensor)} episodes are not allowed; expected {len(mask)}, as mask")
    if not bool(mask.any()):
        raise UserError("mask: no token is in the loss")
    readings = log_prob_readings(old_log_probs[mask], new_log_probs[mask])
    if running is not None:
        readings |= mask_readings(mask, running.bool())
    if advantages is not None:
        spread = advantages if advantages.shape == mask.shape else advantages[:, None].expand(mask.shape)
        if problems is not None:
            readings |= problem_readings(spread, mask, problems)
        if returns is not None and groups is not None:
            readings |= group_readings(spread, mask, groups, returns)
        verdict = success if success is not None else None if returns is None else returns > 0
        if verdict is not None:
            readings |= verdict_readings(spread, mask, verdict.bool())
    return Audit(readings)


Readings = dict[str, tuple[float, int]]


def log_prob_readings(old: Tensor, new: Tensor) -> Readings:
    """Of log-probabilities [m], those stored and those of the policy before its first step."""
    gap, ratio = (new.double() - old.double()).abs(), (new.double() - old.double()).exp()
    sample = ratio.sum().square() / ratio.square().sum() / len(ratio)
    values = {"log_prob_gap_mean": gap.mean(), "log_prob_gap_max": gap.max(), "effective_sample_size": sample}
    return {name: (float(value), len(old)) for name, value in values.items()}


def mask_readings(mask: Tensor, running: Tensor) -> Readings:
    """Of the tokens in the loss and those of the episode, bool [n, T] each."""
    last = running & ~torch.cat([running[:, 1:], torch.zeros_like(running[:, :1])], 1)
    seen = mask.any(1)
    return {
        "tokens_after_the_end": (float((mask & ~running).sum()), int(mask.sum())),
        "last_actions_left_out": (float((last & ~mask).any(1)[seen].sum()), int(seen.sum())),
    }


def problem_readings(advantages: Tensor, mask: Tensor, problems: Tensor) -> Readings:
    """Of advantages [n, T] that are relative to the mean of a group; problems [n]."""
    each, scale = _by_episode(advantages, mask)
    if not scale > 0:
        return {}
    _, problem = problems.unique(return_inverse=True)
    count = torch.bincount(problem)
    mean = torch.zeros(len(count), dtype=each.dtype, device=each.device).index_add(0, problem, each) / count
    return {"group_mean": (float(mean.abs().max()) / scale, len(count))}


def group_readings(advantages: Tensor, mask: Tensor, groups: Tensor, returns: Tensor) -> Readings:
    """Of the same advantages; the groups and the returns of the episodes [n]."""
    each, scale = _by_episode(advantages, mask)
    if not scale > 0:
        return {}
    kinds, kind = torch.stack([groups.double(), returns.double()], 1).unique(dim=0, return_inverse=True)
    most, least = (torch.zeros(len(kinds), dtype=each.dtype, device=each.device) for _ in range(2))
    for result, how in ((most, "amax"), (least, "amin")):
        result.scatter_reduce_(0, kind, each, how, include_self=False)
    return {"weight_by_length": (float((most - least).max()) / scale, len(kinds))}


def _by_episode(advantages: Tensor, mask: Tensor) -> tuple[Tensor, float]:
    """The mean advantage of each episode's tokens in the loss, [n]; and the root mean square of all."""
    each = torch.where(mask, advantages, 0).sum(1) / mask.sum(1).clamp_min(1)
    return each, float(advantages[mask].square().mean().sqrt())


def verdict_readings(advantages: Tensor, mask: Tensor, success: Tensor, least: int = 16) -> Readings:
    """Of advantages [n, T] and verdicts [n]; nothing unless `least` episodes succeed and as many fail."""
    seen = mask.any(1)
    each, won = _by_episode(advantages, mask)[0][seen], success[seen]
    if int(won.sum()) < least or int((~won).sum()) < least or not float(each.std()) > 0:
        return {}
    correlation = torch.corrcoef(torch.stack([each.double(), won.double()]))[0, 1]
    return {"verdict_correlation": (float(correlation), len(won))}
