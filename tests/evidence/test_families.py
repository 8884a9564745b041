"""The small stages of every family are certified."""

from __future__ import annotations

from typing import Any

import pytest

from modelnative.evidence.certify import certify

FAMILIES: list[tuple[str, str, dict[str, Any]]] = [
    ("arithmetic", "T0", {}),
    ("expressions", "E2", {"operators": 3}),
    ("countdown", "C3", {"numbers": 3}),
    ("hops", "H2", {"hops": 3}),
    ("hops", "H2", {"hops": 3, "maps": 2}),
    ("recall", "L3", {"longest": 10}),
    ("dictionary", "K2", {"pairs": 2}),
]
SLOW = pytest.param("dictionary", "K2", {"pairs": 2, "store": True}, marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "stage", "options"), [*FAMILIES, SLOW])
def test_a_small_stage_is_certified(name: str, stage: str, options: dict[str, Any]) -> None:
    certificate = certify(name, stage, options=options, problems=3000, train=False)
    assert [finding.words for finding in certificate.findings if finding.level == "defect"] == []
    (measured,) = certificate.stages
    figures = measured.figures
    assert figures["oracle"].rate == 1.0
    assert max(figures[agent].rate for agent in ("random", "end", "start", "same_answer", "constant")) < 0.5
    assert measured.overlap is not None
    assert measured.overlap.shared == 0
