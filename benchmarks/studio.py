"""How long a visitor of the studio waits: 200 runs, a run of 50,000 updates, and scrubbing, in a real Chromium.

    modelnative train --checkpoint-every 2 --keep-checkpoints 100 --out RUN
    pip install playwright; python benchmarks/studio.py RUN      # RUN: a finished run; Chromium is installed

A folder gets 200 copies of the run, and one whose metrics are repeated until there are 50,000 updates. A studio serves
it in a process of its own. Printed as Markdown: first paint (as the browser reports it), the time until the rows and
curves are there, the intervals between frames while every frame moves the player or the cursor of a curve, and the
memory of the server. Nothing is cached before the first visit; the second visit is of the same browser.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

FRAMES = 240
# Calls a function once a frame, and returns the intervals between frames in milliseconds, in order.
MOVE = """async (act) => {
  const times = [];
  const move = new Function("i", act);
  await new Promise((done) => {
    let i = 0;
    const frame = (now) => {
      times.push(now);
      if (i++ === FRAMES) return done();
      move(i);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  return times.slice(1).map((t, i) => t - times[i]).sort((a, b) => a - b);
}""".replace("FRAMES", str(FRAMES))
SLIDE = """const s = document.querySelector('.transport input');
s.value = 1 + i % Number(s.max); s.dispatchEvent(new Event('input'));"""
SCRUB = """const s = document.querySelector('.scrub input');
s.value = i % (Number(s.max) + 1); s.dispatchEvent(new Event('input'));"""
HOVER = """const o = document.querySelector('.plot .u-over'), r = o.getBoundingClientRect();
o.dispatchEvent(new MouseEvent('mousemove', { clientX: r.left + i % r.width, clientY: r.top + 20, bubbles: true }));"""


def fill(root: Path, run: Path, runs: int, updates: int) -> int:
    """Make the folder; returns the size of the long run's metrics in bytes."""
    ignored = shutil.ignore_patterns("checkpoints", "report.html")
    for number in range(runs - 1):
        shutil.copytree(run, root / f"group-{number % 10}" / f"run-{number:03d}", ignore=ignored)
    shutil.copytree(run, root / "long")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    with open(root / "long" / "metrics.jsonl", "w") as file:
        for update in range(1, updates + 1):
            file.write(json.dumps({**lines[(update - 1) % len(lines)], "update": update}) + "\n")
    return (root / "long" / "metrics.jsonl").stat().st_size


def paint(page: Any) -> float:
    """Milliseconds until the browser painted the first content."""
    return float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))


def frames(page: Any, act: str) -> str:
    """Intervals between frames while each of them moves something."""
    found = page.evaluate(MOVE, act)
    late = sum(interval > 34 for interval in found)
    return f"{found[len(found) // 2]:.1f} ({found[int(0.95 * len(found))]:.1f}, {found[-1]:.1f}); {late} of {FRAMES}"


def memory(pid: int) -> str:
    """The memory of a process, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return f"{int(line.split()[1]) / 1024:.0f} MiB"
    return "unknown"


def visit(browser: Any, address: str, pid: int) -> list[tuple[str, str]]:
    """All measurements, in the order of a visit."""
    # Measuring needs `new Function`, which the pages forbid; the pages themselves run under their policy all the same.
    context = browser.new_context(viewport={"width": 1280, "height": 900}, bypass_csp=True)
    page, rows = context.new_page(), []
    for name in ("first", "second"):
        start = time.perf_counter()
        page.goto(address)
        page.wait_for_selector(".runs tbody tr")
        listed = 1000 * (time.perf_counter() - start)
        rows.append((f"list of runs, {name} visit: first paint, ms", f"{paint(page):.0f}"))
        rows.append((f"list of runs, {name} visit: all rows there, ms", f"{listed:.0f}"))
    rows.append(("server, memory", memory(pid)))
    for name in ("first", "second"):
        page.goto(address)
        page.wait_for_selector(".runs tbody tr")
        start = time.perf_counter()
        page.get_by_role("link", name="long", exact=True).click()
        page.wait_for_selector(".plot canvas")
        rows.append((f"long run, {name} visit: curves there, ms", f"{1000 * (time.perf_counter() - start):.0f}"))
        page.wait_for_selector(".player .program li")
        rows.append((f"long run, {name} visit: an episode there, ms", f"{1000 * (time.perf_counter() - start):.0f}"))
        page.get_by_text("single updates are shown until").wait_for(state="hidden", timeout=60_000)
        rows.append((f"long run, {name} visit: all updates read, ms", f"{1000 * (time.perf_counter() - start):.0f}"))
    unit = "ms between frames: median (95%, longest); longer than 34 ms"
    page.wait_for_timeout(500)
    rows.append((f"nothing moves, {unit}", frames(page, "")))
    rows.append((f"stepping through an episode, {unit}", frames(page, SLIDE)))
    page.get_by_text("Through the training").click()
    start = time.perf_counter()
    page.get_by_role("button", name="Play it by every checkpoint").click()
    page.wait_for_selector(".scrub input")
    count = page.locator(".through tbody tr").count()
    rows.append((f"one problem by {count} checkpoints, ms", f"{1000 * (time.perf_counter() - start):.0f}"))
    rows.append((f"scrubbing through {count} checkpoints, {unit}", frames(page, SCRUB)))
    page.locator(".plot").first.scroll_into_view_if_needed()
    rows.append((f"cursor over a curve, {unit}", frames(page, HOVER)))
    rows.append(("server, memory", memory(pid)))
    context.close()
    return rows


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--updates", type=int, default=50_000)
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        size = fill(Path(folder), asked.run, asked.runs, asked.updates)
        command = [sys.executable, "-m", "modelnative", "studio", folder, "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            told = server.stdout.readline().split()
            address = next((word for word in told if word.startswith("http")), "")
            if not address:
                raise SystemExit("the studio did not start; try: modelnative studio")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            try:
                rows = visit(browser, address, server.pid)
                used = browser.version
            finally:
                browser.close()
                server.terminate()
    print(f"{asked.runs} runs, {asked.updates:,} updates in the longest ({size / 1e6:.0f} MB of metrics).")
    names = ("torch", "starlette", "uvicorn")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Chromium {used} without a GPU,", end=" ")
    print(f"Python {platform.python_version()},", ", ".join(f"{name} {version(name)}" for name in names) + ".\n")
    print("| measured | |\n| --- | --- |")
    for name, text in rows:
        print(f"| {name} | {text} |")


if __name__ == "__main__":
    main()
