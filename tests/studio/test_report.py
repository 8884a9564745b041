from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from sweeping import TINY, write_result

from modelnative.errors import UserError
from modelnative.evidence.explain import ExplainedToken, Explanation
from modelnative.runs.files import read_json, write_json
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio import player
from modelnative.studio.report import POINTS, charts, write_report, write_seeds
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import read_row
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

TAGS = (
    "html head meta title style body main h1 h2 h3 p em div table thead tbody tr th td figure figcaption small code "
    "span i pre dl dt dd script section details summary"
)
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and stores tags and text."""

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
        assert self.open.pop() == tag, f"</{tag}> has no opening tag"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def shown_episodes(path: Path) -> list[dict[str, Any]]:
    """What the player of a report reads."""
    html = path.read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="episodes">(.*?)</script>', html, re.DOTALL)
    return list(json.loads(found))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "a <b>&amp; 'c' {{ 7 * 7 }}"
    config = with_fields(recipe(), {"task": "worlds:Small", "updates": 12, "episodes": 32, "policy": {"width": 8}})
    training = Training.start(path, config)
    list(training.events())
    return training.run


def test_the_report_is_complete(run: Run) -> None:
    path = write_report(run)
    assert path == run.path / "report.html"
    page = read(path)
    flat = " ".join(page.text.split())
    assert "240 problems solved" in flat, "the verdict"
    assert "120 held-out problems were never seen" in flat
    for heading in ("Results", "Learning curves", "Watch it think", "Reproduce", "Configuration", "Machine"):
        assert heading in flat
    for title in (
        "Hint frontier",
        "Entropy",
        "Approximate KL",
        "Clip fraction",
        "Gradient norm",
        "Wasted actions",
        "Speed",
    ):
        assert title in flat
    assert "optimizer.learning_rate" in flat
    assert sum(tag == "svg" for tag, _ in page.tags) >= 8
    traces = [attributes for tag, attributes in page.tags if tag == "table" and attributes.get("class") == "trace"]
    assert 3 <= len(traces) <= 3 * 3
    assert len(traces) == len(shown_episodes(path)), "the player and the tables show the same episodes"
    assert flat.count("Wrong: ") >= 3, "each stage has a failure, and it is shown"


def test_the_report_is_self_contained(run: Run) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    for tag, attributes in read(run.path / "report.html").tags:
        assert tag not in ("link", "iframe", "object", "image", "img")
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "#").startswith("#"), f"{tag} {name}={attributes[name]}"
    assert not re.search(r"url\((?!#)", html)
    (allowed,) = [a["content"] for tag, a in read(run.report_path).tags if "Content-Security-Policy" in a.values()]
    assert str(allowed).startswith("default-src 'none'; script-src 'sha256-")
    assert "@import" not in html
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


def test_the_report_escapes(run: Run) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    assert "a <b>" not in html
    assert "a &lt;b&gt;&amp;amp; &#39;c&#39; {{ 7 * 7 }}" in html
    assert str(run.path) in read(run.path / "report.html").text


@pytest.mark.parametrize(
    "word", ["<b>", "</td></table>", "&amp;", "{{ 7 * 7 }}", "{% raw %}", "'\"><script>", "[/INST]"]
)
def test_text_of_the_task_is_escaped(run: Run, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    token = ExplainedToken(word, word, 0.5, 0.5, 0.5, word, 0.9, {word: word}, True)
    explanation = Explanation(word, word, {"answer": word, "target": word}, (token,), True, False, (word,))
    monkeypatch.setattr(player, "chosen", lambda *arguments: [(word, [player.Episode(word, explanation)])])
    monkeypatch.setattr("modelnative.studio.report.charts", lambda *arguments, **options: [(word, word, Markup(""))])
    monkeypatch.setattr("modelnative.studio.report._fields", lambda run: [(word, word)])
    page = read(write_report(run))
    assert page.text.count(word) >= 12
    assert shown_episodes(run.report_path)[0]["problem"] == word
    assert {tag for tag, _ in page.tags} <= set(TAGS.split())


def test_a_run_without_a_result(tmp_path: Path) -> None:
    config = with_fields(recipe(), {"task": "worlds:Small", "policy": {"width": 8}})
    training = Training.start(tmp_path / "run", config)
    training.run.save_weights(training.trainer.policy)
    with pytest.raises(UserError, match="has no result yet; finish it with: modelnative resume"):
        write_report(training.run)


@pytest.fixture(scope="module")
def partly_trained(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two stages, all solved, and a third that is only tested; T0 is too large to be listed."""
    path = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(run.path, path)
    write_json(path / "config.json", read_json(path / "config.json") | {"stages": 2})
    result = read_json(path / "result.json")
    for kind in ("evaluation", "sampled"):
        for count in result[kind]["counts"]:
            count["successes"] = count["problems"] - (count["stage"] == "T2")
            count["whole"] = count["stage"] != "T0"
    write_json(path / "result.json", result)
    return Run.open(path)


def test_stages_that_are_only_tested_stand_apart(partly_trained: Run) -> None:
    html = write_report(partly_trained).read_text(encoding="utf-8")
    text = " ".join(read(partly_trained.path / "report.html").text.split())
    assert '<p class="verdict good">' in html, "every trained stage is solved"
    assert "Tested only, never trained: T2 (" in text
    assert "T2 (tested only)" in text
    assert "T1 (tested only)" not in text


def test_drawn_stages_are_called_estimates(run: Run, partly_trained: Run) -> None:
    write_report(run)
    exact = " ".join(read(run.path / "report.html").text.split())
    write_report(partly_trained)
    drawn = " ".join(read(partly_trained.path / "report.html").text.split())
    assert "exact counts, not estimates" in exact
    assert "estimates" not in drawn.replace("figures are estimates from a random sample", "")
    assert "Stages T0 have too many problems to play them all: their figures are estimates" in drawn
    assert "sampled problems solved" in drawn
    assert "Every one of" not in drawn


def test_the_report_of_seeds(tmp_path: Path) -> None:
    sweep = Sweep.of_seeds(with_fields(recipe(), TINY), 3, tmp_path / "seeds")
    for trial, share in zip(sweep.trials, (1.0, 0.5), strict=False):
        run = Run.create(sweep.run(trial).path, trial.config)
        run.append([line(1), line(2)])
        write_result(run, share)
    path = write_seeds(sweep, [read_row(sweep, trial, "out of <memory>") for trial in sweep.trials])
    page, html = read(path), path.read_text(encoding="utf-8")
    text = " ".join(page.text.split())
    assert "1 of 3 seeds solved every problem, 1 failed." in text
    assert "failed: out of <memory>" in text
    assert "median32.0s0.7500.750" in text.replace(" ", "")
    assert "lowest32.0s0.5000.500highest32.0s1.0001.000" in text.replace(" ", "")
    assert "policy.width" in text, "the configuration"
    assert '<th class="n">T0</th>' in html, "short headings: ten columns fit into 1,280 pixels"
    assert '<td class="wrap bad">failed: out of &lt;memory&gt;</td>' in html, "a long reason hides no column"
    assert f"modelnative train --config {sweep.run(sweep.trials[0]).path}/config.json --seeds 3 --out NEW" in text
    assert [a["href"] for tag, a in page.tags if tag == "a"] == [f"trials/seed-{s}/report.html" for s in (0, 1)]
    assert html.count("<svg") == 1, "one drawing for each stage that was measured"
    assert html.count("opacity: 0.5") == 2, "a thin line for each seed"
    assert html.count("fill-opacity: 0.2") == 1, "a band"


def test_a_damaged_file_of_one_seed_leaves_the_report_of_the_others(tmp_path: Path) -> None:
    sweep = Sweep.of_seeds(with_fields(recipe(), TINY), 2, tmp_path / "seeds")
    for trial in sweep.trials:
        run = Run.create(sweep.run(trial).path, trial.config)
        run.append([line(1), line(2)])
        write_result(run)
    (sweep.run(sweep.trials[0]).path / "metrics.jsonl").write_bytes(b"\xff{\n{}\n")
    html = write_seeds(sweep, [read_row(sweep, trial) for trial in sweep.trials]).read_text(encoding="utf-8")
    assert html.count("opacity: 0.5") == 1


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


def test_many_stages_have_a_legend_that_wraps() -> None:
    stages = [f"a long stage <name> {s}" for s in range(9)]
    lines = [line(update, success=[0.5] * 9, stages=[""] * 9) for update in (1, 2)]
    (_, _, drawing), *_ = charts(lines, stages, hints=False)
    legend, _, svg = drawing.partition("</div>")
    assert legend.count("<span>") == 9
    assert "a long stage &lt;name&gt; 8" in legend
    opening, _, drawn = svg.partition(">")
    assert "a long stage &lt;name&gt; 8 0.5" in opening, "for who hears the page"
    assert "a long stage" not in drawn


def test_long_curves_are_thinned() -> None:
    (_, _, drawing), *_ = charts([line(update) for update in range(1, 10 * POINTS)], ["T0", "T1"], hints=False)
    path = max(re.findall(r' d="([^"]+)"', drawing), key=len)
    assert path.count("L") <= POINTS
