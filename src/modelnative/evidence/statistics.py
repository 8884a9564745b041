"""Intervals."""

from __future__ import annotations

import math


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
