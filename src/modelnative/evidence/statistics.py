"""Intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a success rate (Wilson, 1927); 95% by default.

    Unlike the bootstrap it does not collapse to a point at perfect success.

    Example:
        >>> [round(bound, 3) for bound in wilson(100, 100)]
        [0.963, 1.0]
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"successes, trials: {successes!r}, {trials!r}; expected 0 <= successes <= trials, trials >= 1"
        )
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # The ends are exact where rounding would miss them.
    low = (centre - spread) / scale if successes else 0.0
    return low, (centre + spread) / scale if successes < trials else 1.0


def median_interval(values: Sequence[float], resamples: int = 10_000) -> tuple[float, float] | None:
    """The 95% percentile-bootstrap interval of the median; the same values give the same interval.

    None for fewer than six values: not even the whole range of five covers the median with 95% (but with 1 - 2 / 2^5).

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
