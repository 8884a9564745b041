"""Checks of one update's numbers that hold exactly in a correct recipe, whatever the task and the policy.

They need tensors alone, so that the same checks serve trainers of other libraries: `mn.audit`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modelnative.errors import UserError

MEAN_GAP, MAX_GAP = 1e-4, 1e-2  # of log-probabilities; rounding gives 2e-7 and 3e-6 in float32
LEAST_READ = 1e-4  # change of a log-probability with another problem's context; only rounding if nothing of it is read
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
        weights = Weights.of(spread, mask)
        if problems is not None:
            readings |= problem_readings(weights, problems)
        if returns is not None and groups is not None:
            readings |= group_readings(weights, groups, returns)
        verdict = success if success is not None else None if returns is None else returns > 0
        if verdict is not None:
            readings |= verdict_readings(weights, verdict.bool())
    return Audit(readings)


Readings = dict[str, tuple[float, int]]

# NumPy computes the readings: on so few numbers a call of torch takes several times as long.
Numbers = npt.NDArray[Any]


def numbers(x: Tensor | Numbers) -> Numbers:
    """A tensor's elements."""
    if not isinstance(x, Tensor):
        return x
    x = x.detach().cpu()
    return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()


@dataclass(frozen=True)
class Weights:
    """The advantages of n episodes.

    Attributes:
        each: [n], the mean over the tokens in the loss.
        scale: their root mean square.
        seen: bool [n], whether there are such tokens.
    """

    each: Numbers
    scale: float
    seen: Numbers

    @classmethod
    def of(cls, advantages: Tensor, mask: Tensor) -> Weights:
        """Of advantages and the tokens in the loss, [n, T] each."""
        inside = numbers(mask)
        count = inside.sum(1)
        each = np.where(inside, numbers(advantages), 0).sum(1, dtype=np.float64) / np.maximum(count, 1)
        seen = count > 0
        return cls(each, math.sqrt(each @ each / max(1, seen.sum())), seen)


def log_prob_readings(old: Tensor | Numbers, new: Tensor | Numbers) -> Readings:
    """Of log-probabilities [m], those stored and those of the policy before its first step."""
    with np.errstate(all="ignore"):
        difference = np.subtract(numbers(new), numbers(old), dtype=np.float64)
        gap, ratio = np.abs(difference), np.exp(difference)
        sample = ratio.sum() ** 2 / (ratio @ ratio) / len(ratio)
    values = {"log_prob_gap_mean": gap.mean(), "log_prob_gap_max": gap.max(), "effective_sample_size": sample}
    return {name: (float(value), len(gap)) for name, value in values.items()}


def mask_readings(mask: Tensor | Numbers, running: Tensor | Numbers) -> Readings:
    """Of the tokens in the loss and those of the episode, bool [n, T] each."""
    inside, runs = numbers(mask), numbers(running)
    last = runs.copy()
    last[:, :-1] &= ~runs[:, 1:]
    seen = inside.any(1)
    return {
        "tokens_after_the_end": (float((inside & ~runs).sum()), int(inside.sum())),
        "last_actions_left_out": (float(((last & ~inside).any(1) & seen).sum()), int(seen.sum())),
    }


def problem_readings(weights: Weights, problems: Tensor) -> Readings:
    """Of advantages that are relative to the mean of a group; problems [n]."""
    if not weights.scale > 0:
        return {}
    order, starts = _kinds(problems)
    mean = np.add.reduceat(weights.each[order], starts) / (np.append(starts[1:], len(order)) - starts)
    return {"group_mean": (float(np.abs(mean).max()) / weights.scale, len(mean))}


def group_readings(weights: Weights, groups: Tensor, returns: Tensor) -> Readings:
    """Of the same advantages; the groups and the returns of the episodes [n]."""
    if not weights.scale > 0:
        return {}
    order, starts = _kinds(returns, groups)
    each = weights.each[order]
    spread = np.maximum.reduceat(each, starts) - np.minimum.reduceat(each, starts)
    return {"weight_by_length": (float(spread.max()) / weights.scale, len(starts))}


def _kinds(*columns: Tensor) -> tuple[Numbers, Numbers]:
    """An order in which episodes with equal numbers in all columns [n] lie side by side, and where each kind starts."""
    keys = [numbers(column) for column in columns]
    order = np.lexsort(keys)
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.logical_or.reduce([x[order[1:]] != x[order[:-1]] for x in keys])
    return order, np.flatnonzero(new)


def verdict_readings(weights: Weights, success: Tensor, least: int = 16) -> Readings:
    """Of advantages and verdicts [n]; nothing unless `least` episodes succeed and as many fail."""
    won, each = numbers(success)[weights.seen].astype(np.float64), weights.each[weights.seen]
    if min(won.sum(), len(won) - won.sum()) < least:
        return {}
    won, each = won - won.mean(), each - each.mean()
    spread = math.sqrt((each @ each) * (won @ won))
    return {"verdict_correlation": (float(each @ won) / spread, len(won))} if spread > 0 else {}
