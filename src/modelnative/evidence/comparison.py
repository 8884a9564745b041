"""Whether one group of trainings is better than another, after Agarwal et al. (2021).

Their paper is "Deep reinforcement learning at the edge of the statistical precipice". A score is the result of one
training, so that seeds are the unit. Scores are given by *stratum*, which is a task: the same training on two tasks
gives two scores that are never mixed up when they are drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
TRIM = 0.25  # of the scores, at each end, that the interquartile mean leaves out
Scores = Sequence[Sequence[float]]  # of a group: for each stratum, the scores of its trainings
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: Floats) -> Floats:
    """The mean of the middle half of the last axis (`scipy.stats.trim_mean(scores, 0.25)`).

    Example:
        >>> float(interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 100.0, 4.0, 5.0, 6.0])))
        3.5
    """
    count = scores.shape[-1]
    cut = int(TRIM * count)
    middle: Floats = np.partition(scores, (cut, count - cut - 1), axis=-1)[..., cut : count - cut].mean(-1)
    return middle


def group_score(scores: Scores, level: float = 0.95, bounds: tuple[float, float] | None = (0.0, 1.0)) -> Estimate:
    """The interquartile mean of all scores, with its stratified bootstrap interval (percentiles).

    The bootstrap of equal scores is a point, however few they are. Of n equal scores one knows that, at this level, at
    most the share q = 1 - ((1 - level) / 2)^(1/n) of all seeds does otherwise (Clopper and Pearson, 1934). The interval
    then holds what the interquartile mean could be if these had the worst, or the best, possible score.

    Args:
        scores: by stratum, at least one in each.
        level: of the interval.
        bounds: the worst and the best possible score; None if there are none, and then equal scores give a point.

    Example:
        >>> group_score([[1.0] * 10])
        Estimate(value=1.0, low=0.8830..., high=1.0)
    """
    pooled = np.concatenate([np.asarray(stratum, dtype=float) for stratum in scores])
    value = float(interquartile_mean(pooled))
    low, high = _interval(interquartile_mean(_resampled(scores, np.random.default_rng(0))), level)
    if bounds is not None and all(len(set(stratum)) == 1 for stratum in scores):
        share = _unseen(min(map(len, scores)), level)
        beyond = min(1.0, max(0.0, share - TRIM) / (1 - 2 * TRIM))
        low, high = value - beyond * (value - bounds[0]), value + beyond * (bounds[1] - value)
    return Estimate(value, min(low, value), max(high, value))


def probability_of_improvement(scores: Scores, others: Scores, level: float = 0.95) -> Estimate:
    """The probability that a training of the first group scores higher than one of the second, of the same stratum.

    It is the mean over strata of the Mann-Whitney statistic, in which a tie counts one half. Where all scores of one
    group exceed all of the other, the bootstrap is a point; then k trainings of each have shown k wins in k pairs, and
    the interval is that of Clopper and Pearson.

    Args:
        scores, others: of the groups, with the same strata in the same order.
        level: of the interval.

    Example:
        >>> probability_of_improvement([[3.0, 4.0]], [[1.0, 2.0]])
        Estimate(value=1.0, low=0.158..., high=1.0)
    """
    generator = np.random.default_rng(0)
    values, drawn = [], []
    for ours, theirs in zip(scores, others, strict=True):
        one, two = np.asarray(ours, dtype=float)[:, None], np.asarray(theirs, dtype=float)[None]
        wins = (one > two) + 0.5 * (one == two)
        counts = [_counts(len(group), generator) for group in (ours, theirs)]
        values.append(float(wins.mean()))
        drawn.append(((counts[0] @ wins) * counts[1]).sum(-1) / wins.size)
    value = float(np.mean(values))
    low, high = _interval(np.mean(drawn, axis=0), level)
    pairs = min(min(len(ours), len(theirs)) for ours, theirs in zip(scores, others, strict=True))
    if value in (0.0, 1.0):
        share = _unseen(pairs, level)
        low, high = (1 - share, 1.0) if value else (0.0, share)
    elif low == high:  # ties only
        low, high = 0.5 - _unseen(pairs, level) / 2, 0.5 + _unseen(pairs, level) / 2
    return Estimate(value, low, high)


def profile(scores: Scores, thresholds: Sequence[float], level: float = 0.95) -> list[Estimate]:
    """For each threshold the share of trainings that score higher, the mean over strata (a performance profile)."""
    drawn = [_drawn(stratum, np.random.default_rng(0)) for stratum in scores]
    found = []
    for threshold in thresholds:
        shares = [float((np.asarray(stratum) > threshold).mean()) for stratum in scores]
        low, high = _interval(np.mean([(each > threshold).mean(-1) for each in drawn], axis=0), level)
        found.append(Estimate(float(np.mean(shares)), low, high))
    return found


def difference(scores: Scores, others: Scores, level: float = 0.95) -> Estimate:
    """The difference of the interquartile means, with its stratified bootstrap interval."""
    statistic: Callable[[Floats], Floats] = interquartile_mean
    ours, theirs = (
        statistic(_resampled(group, np.random.default_rng(seed))) for seed, group in ((0, scores), (1, others))
    )
    low, high = _interval(ours - theirs, level)
    values = [statistic(np.concatenate([np.asarray(s, dtype=float) for s in group])) for group in (scores, others)]
    return Estimate(float(values[0] - values[1]), low, high)


def _drawn(stratum: Sequence[float], generator: np.random.Generator) -> Floats:
    """Float [RESAMPLES, n]: the scores of a stratum, drawn again with replacement."""
    values = np.asarray(stratum, dtype=float)
    return values[generator.integers(len(values), size=(RESAMPLES, len(values)))]


def _resampled(scores: Scores, generator: np.random.Generator) -> Floats:
    """Float [RESAMPLES, all scores]: each stratum drawn again by itself."""
    return np.concatenate([_drawn(stratum, generator) for stratum in scores], axis=1)


def _counts(n: int, generator: np.random.Generator) -> Floats:
    """Float [RESAMPLES, n]: how often each of n trainings is drawn when n are."""
    return generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)


def _interval(drawn: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _unseen(n: int, level: float) -> float:
    """The share of what did not occur in n trials that the level does not exclude."""
    return float(1 - ((1 - level) / 2) ** (1 / n))
