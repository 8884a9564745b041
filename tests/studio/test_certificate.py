"""Certificates in the terminal and in Markdown."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from modelnative.evidence.certificate import Certificate, Finding, SplitOverlap, StageCertificate, SuccessRate
from modelnative.studio.certificate import COLUMNS, conclusion, markdown, page

FIGURES = {
    "oracle": SuccessRate(100_000, 100_000, exact=True),
    "random": SuccessRate(500, 100_000, exact=False),
    "end": SuccessRate(0, 100_000, exact=True),
    "start": SuccessRate(3_000, 100_000, exact=True),
    "same_answer": SuccessRate(27_100, 100_000, exact=True, how="9 ANS (target 9)"),
    "constant": SuccessRate(60_000, 100_000, exact=True, best=False, how="a*b [x] (beam of 3, up to 6 tokens)"),
}
STAGE = StageCertificate("T2", 100_000, True, FIGURES, SplitOverlap(0, 80_000, 20_000, True))
DRAWN = StageCertificate(
    "T3", 5_000, False, {"oracle": SuccessRate(5_000, 5_000, False)}, SplitOverlap(2, 90, 10, False)
)
FINDINGS = (Finding("defect", "T2", "it is a*b", "Fix it."), Finding("warning", "T2", "it is so"))
CERTIFICATE = Certificate("toy", {"size": 3}, (STAGE, DRAWN), FINDINGS, 12.4, False)


def shown(certificate: Certificate) -> list[str]:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    for part in page(certificate):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_terminal_page() -> None:
    lines = shown(CERTIFICATE)
    assert lines[0] == "toy (size=3)"
    row = next(line for line in lines if line.strip().startswith("T2 "))
    assert row.split() == ["T2", "100,000", "1.000", "0.005", "0.030", "0.271", "≥", "0.600", "–", "–", "–", "0"]
    drawn = next(line for line in lines if line.strip().startswith("T3 "))
    assert drawn.split() == ["T3", "of", "many", "5,000", "1.000", *"–" * (len(COLUMNS) - 1), "2", "(sampled)"]
    assert any("[0.999, 1.000]" in line for line in lines)
    assert "T2 best fixed program: a*b [x] (beam of 3, up to 6 tokens)" in lines
    assert lines[-3:] == [
        "defect: T2: it is a*b. Fix it.",
        "warning: T2: it is so.",
        "Not certified: 1 defect (12 s).",
    ]


def test_markdown() -> None:
    lines = markdown(CERTIFICATE).splitlines()
    assert lines[0] == "## toy (size=3)"
    assert lines[4] == ("| T2 | 100,000 | 1.000 | 0.005 [0.004, 0.006] | 0.030 | 0.271 | ≥ 0.600 | – | – | – | 0 |")
    assert r"- T2 best fixed program: a\*b \[x\] (beam of 3, up to 6 tokens)" in lines
    assert r"- **defect** T2: it is a\*b. Fix it." in lines
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"findings": ()}, "Certified: no defect (12 s)."),
        ({"findings": FINDINGS[1:]}, "Certified: no defect, 1 warning (12 s)."),
        ({"findings": FINDINGS[:1] * 2}, "Not certified: 2 defects (12 s)."),
        ({"interrupted": True}, "Interrupted after 12 s: missing rates were not measured."),
    ],
)
def test_the_conclusion(changes: dict[str, object], words: str) -> None:
    assert conclusion(dataclasses.replace(CERTIFICATE, **changes)) == words  # type: ignore[arg-type]


@given(st.integers(1, 300_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_contains_its_rate(counts: tuple[int, int]) -> None:
    stage = dataclasses.replace(STAGE, figures={"constant": SuccessRate(*counts, exact=False)})
    shown = re.search(r"(\d\.\d+) \[(.+), (.+)\]", markdown(dataclasses.replace(CERTIFICATE, stages=(stage,))))
    assert shown is not None
    rate, low, high = map(float, shown.groups())
    assert low <= rate <= high
    assert low <= counts[0] / counts[1] <= high


def test_a_network_with_too_few_updates_is_inconclusive() -> None:
    figures = {"memoryless": SuccessRate(0, 100, exact=True, conclusive=False)}
    stage = dataclasses.replace(STAGE, figures=figures)
    certificate = dataclasses.replace(CERTIFICATE, stages=(stage,), findings=FINDINGS[1:])
    assert conclusion(certificate) == (
        "Inconclusive: no defect, 1 warning (12 s), but a network had too few updates to learn; give more --seconds."
    )
    assert certificate.sound
    assert not certificate.conclusive
