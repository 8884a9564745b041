"""What results look like in a notebook: every text is escaped, and rates are not rounded up."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from modelnative.evidence.certificate import Certificate, Finding, StageCertificate, SuccessRate
from modelnative.evidence.evaluate import Count, Evaluation
from modelnative.evidence.explain import ExplainedToken, Explanation
from modelnative.runs.events import Finished
from modelnative.runs.run import Run

TAGS = {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}


def cells(html: str) -> list[str]:
    """The texts of a page; fails for a tag that does not belong there."""
    found: list[str] = []

    class Page(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert (tag, attrs) in [(known, []) for known in TAGS]

        def handle_data(self, data: str) -> None:
            found.append(data)

    page = Page()
    page.feed(html)
    page.close()
    return found


def results(word: str, path: Path = Path("runs/x")) -> list[Any]:
    """Each of the results, with a word wherever a text of a user's task may be."""
    token = ExplainedToken(word, f"{word}!", 0.5, 0.25, 0.1, word, 0.9, {word: word}, False)
    record = {"answer": word, "target": word}
    evaluation = Evaluation((Count(word, "train", 9999, 10_000), Count(word, "heldout", 0, 0)), greedy=True)
    figures = {"random": SuccessRate(9999, 10_000, exact=False, best=False)}
    stage = StageCertificate(word, 2, True, figures, None)
    run = cast(Run, SimpleNamespace(path=path))
    return [
        Explanation(word, word, record, (token,), False, False, (word,)),
        evaluation,
        Certificate(word, {}, (stage,), (Finding("defect", word, word, word),), 1.0, False),
        Finished(run, evaluation, evaluation, 1, 2, 3, 4.0),
    ]


@given(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8))
def test_text_is_shown_as_it_is(word: str) -> None:
    for result in results(word):
        assert word in "".join(cells(result._repr_html_()))


def test_what_is_no_text_is_replaced() -> None:
    for result in results("\udcff", Path("runs/\udcff")):
        result._repr_html_().encode()


def test_no_rate_is_rounded_up() -> None:
    explanation, evaluation, certificate, _ = results("T0")
    assert cells(evaluation._repr_html_())[6:11] == ["T0", "train", "9999/10000", "0.999", "exact"]
    assert "≥ 0.999" in cells(certificate._repr_html_())
    assert "There is a defect." in cells(certificate._repr_html_())
    assert "≠, no effect" in cells(explanation._repr_html_())
    assert "✗ Wrong: answer T0, target T0." in cells(explanation._repr_html_())


def test_an_estimate_has_an_interval() -> None:
    drawn = Evaluation((Count("T0", "all", 5, 10, whole=False),), greedy=True)
    assert "[0.236, 0.764]" in cells(drawn._repr_html_())
