"""The studio and the report in a real Chromium: `make browser-test`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import modelnative as mn
from modelnative.runs.training import Training
from modelnative.studio.report import write_report
from modelnative.studio.server.serve import serve
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.spec import parse_spec
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
_NAMED = os.environ.get("AXE", "")
AXE = _NAMED if os.path.isfile(_NAMED) else ""
HOSTILE = "<img src=x onerror=alert(1)>'\"&amp;"
SOURCE = Path(__file__).parents[2] / "src"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]

REQUIRED = os.environ.get("BROWSER_REQUIRED", "")  # in CI, where a missing browser must not be a skipped test
FRAMES = 120
# Moves a slider once a frame, and returns the intervals between frames in milliseconds, in order.
SCRUB = """async ([selector, frames]) => {
  const slider = document.querySelector(selector), times = [];
  await new Promise((done) => {
    let i = 0;
    const frame = (now) => {
      times.push(now);
      if (i++ === frames) return done();
      slider.value = String(Number(slider.min) + (i % (Number(slider.max) - Number(slider.min) + 1)));
      slider.dispatchEvent(new Event('input'));
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  return times.slice(1).map((t, i) => t - times[i]).sort((a, b) => a - b);
}"""

pytestmark = [pytest.mark.slow]
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser") / "runs"
    fields = {"task": "worlds:Small", "updates": 100, "checkpoint_every": 10, "keep_checkpoints": 20}
    training = Training.start(root / "first", with_fields(recipe(), {**fields, "threads": 1}))
    list(training.events())
    mn.inspect(root / "first", stages=["T0"], pairs=40, probes=False, file=training.run.inspection_path)
    mn.certify(root / "first", "T0", problems=100, train=False)
    write_report(training.run)
    small = {**fields, "updates": 3, "episodes": 32, "core": "transformer", "policy": {"width": 16, "heads": 2}}
    list(Training.start(root / "attentive", with_fields(recipe(), {**small, "threads": 1})).events())
    few = {**fields, "updates": 3, "episodes": 32, "policy": {"width": 8}, "threads": 1}
    sweep = Sweep.planned(root / "swept", parse_spec({"name": "swept", "base": few, "seeds": [0, 1]}))
    sweep.write()
    for trial in sweep.trials:
        list(Training.start(sweep.run(trial).path, trial.config).events())
    shutil.copytree(root / "first", root / HOSTILE)
    shutil.copytree(root / "first", root / "damaged")
    (root / "damaged" / "config.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """The address of a studio that runs in a thread of this process."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra `studio`")
    servers: list[Any] = []
    started: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        made = uvicorn.Server.__init__
        patch.setattr(uvicorn.Server, "__init__", lambda self, config: (servers.append(self), made(self, config))[1])
        thread = threading.Thread(target=serve, args=(runs,), kwargs={"port": 0, "started": started.append})
        thread.start()
        while not (started and servers):
            thread.join(0.01)
        yield started[0]
        servers[0].should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        if not os.path.exists(CHROMIUM or playwright.chromium.executable_path):
            told = "no Chromium was found; install it, name it by CHROMIUM, or run: make browser-install"
            pytest.fail(told) if REQUIRED else pytest.skip(told)
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Visitor:
    """A page, and everything that went wrong on it."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append("a dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open_run(self, address: str, name: str = "first") -> None:
        self.page.goto(address)
        self.page.get_by_role("link", name=name, exact=True).click()
        self.page.wait_for_selector(".player .program li")

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Wait until a JavaScript expression is true. Playwright's own way needs `eval`, which the pages forbid."""
        until = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < until, f"never true: {condition}"
            self.page.wait_for_timeout(50)

    def status(self, player: int = 0) -> str:
        return str(self.page.locator(".player .status").nth(player).text_content())

    def width_is_kept(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.fixture
def visitor(browser: Any) -> Iterator[Visitor]:
    made = Visitor(browser)
    yield made
    made.context.close()
    assert made.faults == []


def test_an_episode_is_played_by_keyboard(visitor: Visitor, address: str) -> None:
    visitor.open_run(address)
    page = visitor.page
    page.locator(".player").focus()
    assert visitor.status().startswith("Token 1 of")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert visitor.status().startswith("Token 3 of")
    page.keyboard.press("ArrowLeft")
    assert visitor.status().startswith("Token 2 of")
    page.keyboard.press("End")
    count = page.locator(".player .program button:enabled").count()
    assert visitor.status().startswith(f"Token {count} of {count}")
    page.keyboard.press("Home")
    assert visitor.status().startswith("Token 1 of")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "First token"
    page.get_by_role("button", name="Play").click()
    visitor.wait(f"document.querySelector('.status').textContent.startsWith('Token {count} of')")


def test_a_problem_is_typed_and_a_wrong_one_refused(visitor: Visitor, address: str) -> None:
    visitor.open_run(address)
    page = visitor.page
    page.get_by_role("combobox", name="Stage").select_option("T0")
    problem = page.get_by_role("textbox", name="Problem")
    problem.fill("3 7 2")
    problem.press("Enter")
    visitor.wait("[...document.querySelectorAll('.strip b')].map((b) => b.textContent).join(' ') === '3 7 2 CTX'")
    assert page.locator(".player .outcome").text_content().startswith(("✓ Right", "✗ Wrong"))
    problem.fill("3 <b>7</b>")
    problem.press("Enter")
    reason = page.get_by_role("alert")
    reason.wait_for()
    assert "problem" in str(reason.text_content())
    assert "<b>" in str(reason.text_content())
    assert page.locator(".player").count() == 0
    visitor.faults.clear()  # the browser itself notes that an answer had status 400


def test_what_is_typed_while_a_problem_is_drawn_stays(visitor: Visitor, address: str) -> None:
    visitor.open_run(address)
    page, held = visitor.page, []
    page.route("**/api/problem*", lambda route: held.append(route))
    page.get_by_role("combobox", name="Stage").select_option("T0")
    while not held:
        page.wait_for_timeout(20)
    problem = page.get_by_role("textbox", name="Problem")
    problem.fill("3 7 2")
    held[0].continue_()
    page.wait_for_timeout(1000)
    assert problem.input_value() == "3 7 2"


def test_two_checkpoints_side_by_side(visitor: Visitor, address: str) -> None:
    visitor.open_run(address)
    page = visitor.page
    beside = page.get_by_label("Beside it")
    checkpoint = [text for text in beside.locator("option").all_text_contents() if "checkpoint" in text][-1]
    beside.select_option(label=checkpoint)
    visitor.wait("document.querySelectorAll('.player').length === 2")
    strips = page.evaluate(
        "[...document.querySelectorAll('.player .strip')].map((s) => s.querySelectorAll('b').length)"
    )
    assert strips[0] == strips[1]
    page.locator(".player").first.focus()
    page.keyboard.press("ArrowRight")
    assert [visitor.status(i)[:10] for i in (0, 1)] == ["Token 2 of", "Token 2 of"]
    page.get_by_label("step together").uncheck()
    page.keyboard.press("Tab")
    page.locator(".player").first.focus()
    page.keyboard.press("ArrowRight")
    assert [visitor.status(i)[:10] for i in (0, 1)] == ["Token 3 of", "Token 2 of"]


def test_a_curve_moves_while_a_run_trains(visitor: Visitor, address: str, runs: Path) -> None:
    page = visitor.page
    page.goto(address)
    command = [sys.executable, "-m", "modelnative", "train", "--out", str(runs / "live"), "--updates", "60"]
    command += ["--episodes", "16384"]  # slow enough to be looked at
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as training:
        page.get_by_role("link", name="live", exact=True).click(timeout=60_000)
        page.wait_for_selector(".plot canvas", timeout=60_000)
        number = "Number((document.querySelector('.facts').textContent.match(/update (\\d+)/) || [0, 0])[1])"
        before = page.evaluate(number)
        picture = page.locator(".plot canvas").first.screenshot()
        visitor.wait(f"{number} > {before}", 60)
        visitor.wait(f"{number} >= 20", 60)
        assert page.locator(".plot canvas").first.screenshot() != picture
        assert training.wait() == 0
    visitor.faults.clear()  # a run without weights says so once


def test_the_report_opens_from_disk_without_a_network(browser: Any, runs: Path) -> None:
    visitor = Visitor(browser, offline=True)
    file = (runs / "first" / "report.html").as_uri()
    visitor.page.goto(file)
    visitor.page.locator(".player").focus()
    visitor.page.keyboard.press("End")
    assert "Token " in visitor.status()
    assert visitor.requests == [file]
    assert visitor.faults == []
    options = visitor.page.locator(".player > select option").count()
    for index in range(options):
        visitor.page.locator(".player > select").select_option(index=index)
        assert visitor.status().startswith("Token 1 of")
    assert (runs / "first" / "report.html").stat().st_size < 3_000_000
    visitor.context.close()


def test_something_is_replaced_by_keyboard(visitor: Visitor, address: str) -> None:
    visitor.open_run(address)
    page = visitor.page
    page.get_by_text("Inside: what is carried").focus()
    page.keyboard.press("Enter")
    page.get_by_role("combobox", name="Replace", exact=True).select_option("whole policy state")
    page.get_by_role("combobox", name="before action").select_option("1")
    donor = page.get_by_role("textbox", name="Donor problem")
    visitor.wait("!document.querySelector('.panel .main').disabled")
    assert str(donor.input_value()).strip()
    donor.press("Enter")
    page.locator(".panel .words").wait_for()
    assert "The donor answers" in str(page.locator(".panel .words").text_content())
    programs = page.locator(".panel .player .program").all()
    tokens = [program.locator("b").all_text_contents() for program in programs]
    assert len(tokens) == 3
    assert tokens[1] == tokens[2], "with another problem's whole policy state from the start, it is another's agent"
    assert "⇄" in str(page.locator(".panel .player .program").nth(1).text_content())
    page.locator(".panel .player").first.focus()
    page.keyboard.press("ArrowRight")
    statuses = page.locator(".panel .player .status").all_text_contents()
    assert len({text.split(" of ")[0] for text in statuses}) == 1, "they step together"
    donor.fill("1")
    donor.press("Enter")
    page.locator(".panel").get_by_role("alert").wait_for()
    visitor.faults.clear()  # status 400


def test_what_is_carried_is_shown_and_leads_to_a_switch(visitor: Visitor, address: str) -> None:
    visitor.open_run(address)
    page = visitor.page
    assert page.locator(".player .carried").count() == 0, "T2 was not inspected"
    page.get_by_text("Inside: what is carried").click()
    page.get_by_role("button", name="Inspect this stage").click()
    page.locator(".player .carried").first.wait_for()
    assert "From 100 pairs" in str(page.locator(".panel").first.text_content())
    page.locator(".player").first.focus()
    page.keyboard.press("ArrowRight")
    here = page.locator(".player .carried thead .here").first.text_content()
    assert here == "2"
    page.get_by_role("button", name="hidden state, action 2:").first.click()
    page.locator(".panel .words").wait_for()
    assert page.get_by_role("combobox", name="before action").input_value() == "2"
    page.get_by_role("combobox", name="Agent").select_option(index=1)
    visitor.wait("document.querySelector('.side h3').textContent.includes('checkpoint')")
    assert page.locator(".side > div > .player .carried").count() == 0, "what was found is of other weights"


def test_one_problem_through_the_training(visitor: Visitor, address: str) -> None:
    visitor.open_run(address)
    page = visitor.page
    page.get_by_text("Through the training").click()
    page.get_by_role("button", name="Play it by every checkpoint").click()
    slider = page.get_by_role("slider", name="Checkpoint")
    slider.wait_for()
    count = page.locator(".through tbody tr").count()
    assert count >= 10
    slider.focus()
    page.keyboard.press("Home")
    assert str(page.locator(".panel .words").text_content()).startswith("Update 0:")
    page.keyboard.press("ArrowRight")
    assert str(page.locator(".panel .words").text_content()).startswith("Update 10:")
    intervals = page.evaluate(SCRUB, [".scrub input", FRAMES])
    assert intervals[FRAMES // 2] < 50, f"the median of {FRAMES} frames, in ms, on a busy machine: {intervals[-5:]}"


def test_episodes_are_found_and_opened(visitor: Visitor, address: str) -> None:
    visitor.open_run(address)
    page = visitor.page
    page.get_by_text("Find episodes").click()
    page.get_by_role("combobox", name="Episodes").select_option("longest")
    page.get_by_role("button", name="Find", exact=True).click()
    first = page.locator(".found tbody button").first
    first.wait_for()
    text = str(first.text_content())
    first.click()
    visitor.wait(f"document.querySelector('input[type=text]').value === {text!r}")
    context = "[...document.querySelectorAll('.strip b')].map((b) => b.textContent).join(' ')"
    visitor.wait(f"{context}.startsWith({text!r})")


def test_attention_is_shown_by_head(visitor: Visitor, address: str) -> None:
    visitor.open_run(address, "attentive")
    page = visitor.page
    view = page.get_by_label("Weights shown")
    names = view.locator("option").all_text_contents()
    assert "attention, mean of all heads" in names
    assert "attention, layer 2, head 2" in names
    view.select_option(label="attention, layer 2, head 2")
    page.locator(".player").first.focus()
    page.keyboard.press("End")
    shown = page.evaluate("[...document.querySelectorAll('.ink')].map((e) => parseFloat(e.style.height) || 0)")
    start = float(str(page.locator(".player").first.text_content()).split("Attention on the start: ")[1].split("%")[0])
    assert sum(shown) + start == pytest.approx(100, abs=1.5)


def test_a_sweep_has_intervals(visitor: Visitor, address: str) -> None:
    page = visitor.page
    page.goto(address)
    page.get_by_role("link", name="swept", exact=True).click()
    page.get_by_role("heading", name="Groups over seeds").wait_for()
    text = str(page.locator("main").text_content())
    assert "2 seeds in the smallest group: too few for a claim" in text
    assert page.locator(".sweep figure").count() == 3
    assert page.locator(".dots circle").count() == 6
    page.get_by_role("link", name="seed=0").first.click()
    page.wait_for_selector(".player .program li")


def test_the_certificate_is_shown_or_the_command(visitor: Visitor, address: str) -> None:
    visitor.open_run(address)
    visitor.page.get_by_role("region", name="Certificate").wait_for()
    assert "best fixed program" in str(visitor.page.get_by_role("region", name="Certificate").text_content())
    visitor.open_run(address, "attentive")
    visitor.page.get_by_text("modelnative certify ").wait_for()


LONG = {"task": "recall", "options": {"longest": 1000}, "updates": 1, "episodes": 16, "policy": {"width": 8}}
HIDDEN = "[...document.querySelectorAll('.scroll')].map((e) => e.scrollWidth - e.clientWidth)"
TALLEST = "Math.max(...[...document.querySelectorAll('.scroll')].map((e) => e.clientHeight))"


def test_a_report_of_long_episodes_is_no_scroll(visitor: Visitor, tmp_path: Path) -> None:
    training = Training.start(tmp_path / "long", with_fields(recipe(), LONG))
    list(training.events())
    task = training.run.task()
    patient = training.run.policy(task)
    patient.get_parameter("heads.out.bias").data[task.spec.vocabulary.index("WAIT")] = 50
    training.run.save_weights(patient)
    visitor.page.goto(write_report(training.run).as_uri())
    assert visitor.page.locator("h2", has_text="Watch it think").count() == 1
    assert visitor.page.locator("figure").count() > 5
    assert 1000 < visitor.page.evaluate("document.documentElement.scrollHeight") < 6000
    visitor.page.locator("details").first.evaluate("(e) => e.open = true")
    assert visitor.page.locator(".trace tbody").last.locator("tr").count() > 1000, "the longest episode is there"
    assert visitor.page.evaluate(TALLEST) <= 512


def test_the_report_of_seeds_shows_every_column(visitor: Visitor, tmp_path: Path) -> None:
    config = with_fields(recipe(), {**LONG, "threads": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SOURCE))
        mn.train(config=config, out=tmp_path / "seeds", seeds=2)
    visitor.page.goto((tmp_path / "seeds" / "report.html").as_uri())
    headings = visitor.page.locator("thead th").all_text_contents()
    assert headings == ["seed", "verdict", "updates", "time", "L1", "L3", "L10", "L30", "L100", "L300", "L1000"]
    assert visitor.page.locator("tbody tr").count() == 2 + 3, "each seed; median, lowest and highest"
    assert visitor.page.evaluate(HIDDEN) == [0]
    assert 1000 < visitor.page.evaluate("document.documentElement.scrollHeight") < 6000


def test_a_hostile_run_is_text(visitor: Visitor, address: str) -> None:
    page = visitor.page
    visitor.open_run(address, HOSTILE)
    assert page.locator("h1").text_content() == HOSTILE
    assert page.locator("img").count() == 0
    page.go_back()
    page.get_by_label("Search").fill("damaged")
    visitor.wait("document.querySelectorAll('.runs tbody tr').length === 1")
    assert "config.json: not JSON" in str(page.locator(".runs tbody").text_content())


def test_a_hostile_report_reaches_nothing(visitor: Visitor, address: str, runs: Path) -> None:
    shutil.copytree(runs / "first", runs / "mail")
    script = (
        "const note = (text) => document.body.append(text);"
        "fetch('/api/runs').then(() => note('READ'), () => note('kept out'));"
        "try { localStorage.x = 1; note('STORED'); } catch { note('no origin'); }"
    )
    (runs / "mail" / "report.html").write_text(f"<body><script>{script}</script>")
    visitor.page.goto(f"{address}report?id=mail")
    visitor.wait("document.body.textContent.includes('kept out')")
    assert "no origin" in str(visitor.page.text_content("body"))
    assert "READ" not in str(visitor.page.locator("body").inner_text())
    visitor.faults.clear()  # what was refused
    shutil.rmtree(runs / "mail")


def test_a_run_that_is_deleted_while_it_is_shown(visitor: Visitor, address: str, runs: Path) -> None:
    shutil.copytree(runs / "first", runs / "short")
    visitor.open_run(address, "short")
    shutil.rmtree(runs / "short")
    visitor.page.get_by_text("is gone: its folder was deleted or moved").wait_for()
    visitor.page.get_by_role("link", name="all runs").click()
    visitor.page.get_by_role("link", name="first", exact=True).wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280, 2560])
def test_every_width_and_scheme(browser: Any, address: str, runs: Path, width: int, scheme: str) -> None:
    visitor = Visitor(browser, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = visitor.page
    visitor.page.goto(address)
    page.wait_for_selector(".runs tbody tr")
    assert visitor.width_is_kept()
    found = _violations(page)
    visitor.open_run(address)
    page.get_by_label("Beside it").select_option(index=2)
    visitor.wait("document.querySelectorAll('.player').length === 2")
    for panel in page.locator(".panel > summary").all():
        panel.click()
    visitor.wait("!document.querySelector('.panel .main').disabled")
    page.get_by_role("button", name="Replace", exact=True).click()
    page.get_by_role("button", name="Inspect this stage").click()
    page.get_by_role("button", name="Play it by every checkpoint").click()
    page.get_by_role("button", name="Find", exact=True).click()
    page.locator(".player .carried").first.wait_for()
    page.locator(".through").wait_for()
    visitor.wait("document.querySelectorAll('.player').length >= 6")
    assert visitor.width_is_kept()
    found += _violations(page)
    page.goto(f"{address}#/sweep?id=swept")
    page.get_by_role("heading", name="Groups over seeds").wait_for()
    assert visitor.width_is_kept()
    found += _violations(page)
    page.goto((runs / "first" / "report.html").as_uri())
    page.locator("details").first.evaluate("(e) => e.open = true")
    assert visitor.width_is_kept()
    found += _violations(page)
    visitor.context.close()
    assert visitor.faults == []
    assert not found, "\n".join(found)
    if not AXE:
        pytest.skip("widths and errors were tested; accessibility needs axe-core: AXE=path/to/axe.min.js")


def _violations(page: Any) -> list[str]:
    """What axe-core finds on a page."""
    if not AXE:
        return []
    page.wait_for_timeout(300)  # transitions
    page.evaluate(Path(AXE).read_text(encoding="utf-8"))
    result = page.evaluate("(tags) => axe.run({ runOnly: { type: 'tag', values: tags } })", RULES)
    return [
        f"{v['id']}: {node['html'][:150]} {node['failureSummary'][:200]}"
        for v in result["violations"]
        for node in v["nodes"][:2]
    ]
