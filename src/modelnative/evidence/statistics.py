"""Confidence intervals, and shares of episodes that have one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a success rate (Wilson, 1927); 95% by default.

    Unlike the bootstrap, it does not collapse to a point at perfect success.

    Example:
        >>> [round(bound, 3) for bound in wilson(100, 100)]
        [0.963, 1.0]
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"successes, trials: {successes!r}, {trials!r}; expected 0 <= successes <= trials, trials >= 1"
        )
    rate = successes / trials
    center = rate + z * z / (2 * trials)
    half_width = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # Rounding would miss 0 and 1, so these bounds are returned exactly.
    low = (center - half_width) / scale if successes else 0.0
    return low, (center + half_width) / scale if successes < trials else 1.0


def median_interval(values: Sequence[float], resamples: int = 10_000) -> tuple[float, float] | None:
    """The 95% percentile-bootstrap interval of the median. Equal values give equal intervals.

    Returns None for fewer than six values: the whole range of five covers the median with probability 1 - 2 / 2^5,
    which is less than 95%.

    Example:
        >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
        (2.0, 6.0)
        >>> median_interval([1.0, 2.0]) is None
        True
    """
    if len(values) < 6:
        return None
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(np.asarray(values, dtype=float), (resamples, len(values))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class Share:
    """`hits` of `trials`, with the 95% Wilson interval."""

    hits: int
    trials: int

    @property
    def rate(self) -> float | None:
        """None without trials."""
        return self.hits / self.trials if self.trials else None

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        if not self.trials:
            return {"hits": 0, "trials": 0, "rate": None, "interval": None}
        low, high = wilson(self.hits, self.trials)
        return {**vars(self), "rate": round(self.hits / self.trials, 6), "interval": [round(low, 6), round(high, 6)]}


def share(hits: Tensor, among: Tensor) -> Share:
    """Of bool [n] those among bool [n]."""
    return Share(int((hits & among).sum()), int(among.sum()))
