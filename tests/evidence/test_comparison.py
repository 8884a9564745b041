"""Statistics over seeds: as rliable computes them, and sensible where the bootstrap is a point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelnative.evidence import comparison
from modelnative.evidence.comparison import (
    difference,
    group_score,
    interquartile_mean,
    probability_of_improvement,
    profile,
)

RECORDED = json.loads((Path(__file__).parent / "data" / "rliable.json").read_text())
RATES = st.lists(st.floats(0, 1, width=16), min_size=1, max_size=12)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "recorded" not in request.node.name:
        monkeypatch.setattr(comparison, "RESAMPLES", 500)


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
def test_as_recorded_from_rliable(case: dict[str, list[list[float]]]) -> None:
    ours, theirs = case["x"], case["y"]
    score, better = group_score(ours), probability_of_improvement(ours, theirs)
    assert score.value == pytest.approx(case["iqm"], abs=1e-12)
    assert better.value == pytest.approx(case["probability"], abs=1e-12)
    assert [score.low, score.high] == pytest.approx(case["iqm_interval"], abs=0.01)
    assert [better.low, better.high] == pytest.approx(case["probability_interval"], abs=0.015)
    found = profile(ours, case["thresholds"])
    assert [each.value for each in found] == pytest.approx(case["profile"], abs=1e-12)


@given(scores=RATES)
def test_an_interval_holds_its_estimate(scores: list[float]) -> None:
    found = group_score([scores])
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert min(scores) - 1e-9 <= found.value <= max(scores) + 1e-9


@given(ours=RATES, theirs=RATES)
def test_two_groups_exchanged_give_the_opposite(ours: list[float], theirs: list[float]) -> None:
    one, two = probability_of_improvement([ours], [theirs]), probability_of_improvement([theirs], [ours])
    assert one.value == pytest.approx(1 - two.value)
    assert one.low <= one.value + 1e-9
    assert one.value <= one.high + 1e-9
    apart = difference([ours], [theirs])
    assert apart.low - 1e-9 <= apart.value <= apart.high + 1e-9 or len(ours) < 3 or len(theirs) < 3


@given(scores=st.lists(RATES, min_size=1, max_size=3))
def test_a_profile_falls(scores: list[list[float]]) -> None:
    values = [each.value for each in profile(scores, [0.0, 0.25, 0.5, 0.75, 1.0])]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0


@pytest.mark.parametrize(("seeds", "low"), [(3, 0.085), (5, 0.456), (10, 0.883), (20, 1.0)])
def test_equal_scores_give_no_point_unless_there_are_many(seeds: int, low: float) -> None:
    found = group_score([[1.0] * seeds])
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(low, abs=0.001)
    assert group_score([[0.0] * seeds]).high == pytest.approx(1 - low, abs=0.001)


@pytest.mark.parametrize(("seeds", "supported"), [(2, False), (4, False), (5, False), (6, True), (10, True)])
def test_separated_groups_need_six_seeds(seeds: int, supported: bool) -> None:
    found = probability_of_improvement([[1.0] * seeds], [[0.5] * seeds])
    assert found.value == 1.0
    assert (found.low > 0.5) is supported


def test_ties_support_nothing() -> None:
    found = probability_of_improvement([[1.0] * 10], [[1.0] * 10])
    assert found.value == 0.5
    assert found.low < 0.4
    assert found.high > 0.6


def test_strata_are_not_mixed() -> None:
    """Better on each task, though all scores together look alike."""
    found = probability_of_improvement([[0.2] * 8, [0.9] * 8], [[0.1] * 8, [0.8] * 8])
    assert found.value == 1.0
    assert probability_of_improvement([[0.2] * 8 + [0.9] * 8], [[0.1] * 8 + [0.8] * 8]).value == 0.75


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_the_interquartile_mean_is_that_of_the_sorted_middle(scores: list[float]) -> None:
    cut = len(scores) // 4
    middle = sorted(scores)[cut : len(scores) - cut]
    assert float(interquartile_mean(np.array(scores))) == pytest.approx(sum(middle) / len(middle))
