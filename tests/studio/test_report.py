from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from modelnative.errors import UserError
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio.report import POINTS, charts, write_report
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps what the tests ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes what is not open"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "a <b>&amp; 'c' {{ 7 * 7 }}"
    config = with_fields(recipe(), {"task": "worlds:Small", "updates": 12, "episodes": 32, "policy": {"width": 8}})
    training = Training.start(path, config)
    list(training.events())
    return training.run


def test_the_report_is_whole(run: Run) -> None:
    path = write_report(run)
    assert path == run.path / "report.html"
    page = read(path)
    flat = " ".join(page.text.split())
    assert "240 problems solved" in flat, "the verdict"
    assert "120 held-out problems were never seen" in flat
    for heading in ("Results", "Learning curves", "Token by token", "Again", "Configuration", "Machine"):
        assert heading in flat
    for title in ("Hint frontier", "Entropy", "Approximate KL", "Clip fraction", "Gradient norm", "Speed"):
        assert title in flat
    assert "optimizer.learning_rate" in flat
    assert sum(tag == "svg" for tag, _ in page.tags) >= 8
    traces = [attributes for tag, attributes in page.tags if tag == "table" and attributes.get("class") == "trace"]
    assert len(traces) == 2 * 3
    assert flat.count("Wrong: ") >= 3, "each stage has a failure, and it is shown"


def test_the_report_needs_nothing_else(run: Run) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    for tag, attributes in read(run.path / "report.html").tags:
        assert tag not in ("script", "link", "iframe", "object", "image", "img")
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "#").startswith("#"), f"{tag} {name}={attributes[name]}"
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


def test_the_report_escapes(run: Run) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    assert "a <b>" not in html
    assert "a &lt;b&gt;&amp;amp; &#39;c&#39; {{ 7 * 7 }}" in html
    assert str(run.path) in read(run.path / "report.html").text


def test_a_run_without_a_result(tmp_path: Path) -> None:
    config = with_fields(recipe(), {"task": "worlds:Small", "policy": {"width": 8}})
    training = Training.start(tmp_path / "run", config)
    training.run.save_weights(training.trainer.policy)
    with pytest.raises(UserError, match=r"result.json: cannot be read"):
        write_report(training.run)


def line(update: int, **changes: Any) -> dict[str, Any]:
    names = ("entropy", "approximate_kl", "clip_fraction", "explained_variance", "gradient_norm", "invalid")
    return {
        "update": update,
        "success": [None, 0.5],
        "stages": ["1/6 free", ""],
        "timing": {"steps_per_second": 1000.0},
        **dict.fromkeys(names, 0.5),
        **changes,
    }


def test_charts_show_what_was_measured() -> None:
    def titles(metrics: list[dict[str, Any]], *, hints: bool) -> list[str]:
        return [title for title, _, _ in charts(metrics, ["T0", "T1"], hints=hints)]

    assert "Hint frontier" in titles([line(1)], hints=True)
    assert "Hint frontier" not in titles([line(1)], hints=False)
    assert "Success" not in titles([line(1, success=[None, None])], hints=True)
    assert titles([], hints=True) == []


def test_long_curves_are_thinned() -> None:
    (_, _, drawing), *_ = charts([line(update) for update in range(1, 10 * POINTS)], ["T0", "T1"], hints=False)
    path = max(re.findall(r' d="([^"]+)"', drawing), key=len)
    assert path.count("L") <= POINTS
