"""Names, problems and values of a user's task are shown as they are, in the terminal and on pages."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import RenderableType

from modelnative.evidence.certificate import Certificate, Finding, StageCertificate, SuccessRate
from modelnative.evidence.evaluate import Count, Evaluation
from modelnative.evidence.explain import ExplainedToken, Explanation
from modelnative.studio import certificate, tables

# One word that a terminal of 200 columns does not wrap, without characters that have no width.
WORDS = st.text(st.characters(exclude_categories=("C", "Z", "M", "Sk")), min_size=1, max_size=12)
MARKUP = (
    "[/INST]",
    "[bold]",
    "[red]x[/red]",
    ":smile:",
    "[x",
    "\\[x]",
    "<b>&amp;",
    "{{x}}",
    "[link=x]y",
    "a|b",
    "`a*_",
)


def shown(parts: Iterable[RenderableType], columns: int = 200) -> str:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stream):
        patch.setenv("COLUMNS", str(columns))
        assert sys.stdout is stream
        tables.show(parts)
    return stream.getvalue()


def explained(word: str) -> Explanation:
    token = ExplainedToken(word, word, 0.5, 0.5, 0.5, word, 0.9, {word: word}, True)
    return Explanation(word, word, {"answer": word, "target": word}, (token,), True, False, (word,))


def certified(word: str) -> Certificate:
    figures = {"constant": SuccessRate(1, 2, exact=True, how=word)}
    stage = StageCertificate(word, 2, True, figures, None)
    return Certificate(word, {word: word}, (stage,), (Finding("note", word, word, word),), 1.0, False)


def examples(test: object) -> object:
    for word in MARKUP:
        test = example(word)(test)  # type: ignore[arg-type]
    return test


@examples
@given(WORDS)
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50, deadline=None)
def test_a_terminal_shows_text_as_it_is(word: str) -> None:
    assert shown(tables.explanation_page(explained(word))).count(word) >= 7
    assert shown(certificate.page(certified(word))).count(word) >= 6
    assert word in shown([tables.results(Evaluation((Count(word, "train", 1, 2),), greedy=True))])


@examples
@given(WORDS)
@settings(max_examples=50, deadline=None)
def test_markdown_shows_text_as_it_is(word: str) -> None:
    page = certificate.markdown(certified(word))
    for character in "\\*_`<>[]|#":
        assert page.replace("\\\\", "").count(f"\\{character}") >= 5 * (character in word) * (character != "\\")
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\\\", "").replace("\\|", "").count("|") for line in table}) == 1


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_a_narrow_terminal_cuts_no_word(columns: int) -> None:
    registers = {"entry": "3", "accumulator": "-123", "pending": "MUL", "memory": "12", "display": "-123"}
    explanation = explained("DIVIDE")
    row = dataclasses.replace(explanation.rows[0], registers=registers, oracle="ANS", valid=False)
    page = shown(tables.explanation_page(dataclasses.replace(explanation, rows=(row,) * 4)), columns)
    words = page.replace(",", " ").split()
    for word in ("step", "token", "copied", "oracle", "differs", "effect", *registers):
        assert word in words
    counts = [Count(f"S{s}", split, 19_999, 20_000, False) for s in range(3) for split in ("train", "heldout")]
    page = shown([tables.results(Evaluation(tuple(counts), greedy=False))], columns)
    assert page.split().count("19999/20000") == 6
    assert page.split().count("[0.999,") == 12
    figures = {name: SuccessRate(5, 10_000, exact=False) for name in ("random", "constant", "memoryless", "blind")}
    stages = tuple(StageCertificate(f"L{2**s}", 100_000, False, figures, None) for s in range(7))
    page = shown(certificate.page(dataclasses.replace(certified("x"), stages=stages)), columns)
    words = page.split()
    for word in ("problems", "memoryless", "commonest", "overlap"):
        assert word in words
    assert "…" not in page
    assert (words.count("[0.000,"), words.count("0.002]")) == (28, 28)
    assert max(map(len, page.splitlines())) <= columns
