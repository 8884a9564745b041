from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelnative.evidence.statistics import median_interval, wilson

# Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3.
PUBLISHED = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("successes", "trials", "low", "high"), PUBLISHED)
def test_wilson_equals_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_rate_and_is_symmetric(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high, "it does not collapse to a point"
    assert wilson(trials - successes, trials) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_rejects_impossible_counts(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= successes <= trials"):
        wilson(successes, trials)


def test_the_medians_interval_covers_it_as_often_as_it_says() -> None:
    # The percentile bootstrap is a little too narrow for ten values; far below 0.9 it would be wrong.
    generator = np.random.default_rng(0)
    intervals = [median_interval(list(generator.exponential(size=10)), resamples=500) for _ in range(400)]
    covered = sum(low <= np.log(2) <= high for low, high in filter(None, intervals))
    assert 0.90 <= covered / 400 <= 0.98


def test_the_medians_interval_is_the_same_again_and_lies_within_the_values() -> None:
    values = [3.0, 9.0, 1.0, 4.0, 7.0, 5.0, 2.0]
    interval = median_interval(values)
    assert interval == median_interval(values) == median_interval(sorted(values))
    assert interval is not None
    assert 1.0 <= interval[0] <= 4.0 <= interval[1] <= 9.0
    assert median_interval([5.0] * 6) == (5.0, 5.0)


@pytest.mark.parametrize("count", range(6))
def test_too_few_values_have_no_interval(count: int) -> None:
    assert median_interval([float(i) for i in range(count)]) is None
