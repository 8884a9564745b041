"""Take the pictures of the studio and of the report for the documentation.

    modelnative train --out runs/first
    pip install playwright; python docs/_build/screenshots.py runs/first     # writes docs/assets/*.png; needs Chromium
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

import modelnative as mn

ASSETS = Path(__file__).parents[1] / "assets"
COLORS = 64  # of a picture, which is then a third as large


def save(path: Path) -> None:
    """Reduce the colors of a picture."""
    picture = Image.open(path).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def studio(browser: Any, run: Path) -> None:
    """A problem, solved by the newest weights and by the oldest checkpoint."""
    address: list[str] = []
    options = {"port": 0, "started": address.append}
    threading.Thread(target=mn.serve, args=(run.parent,), kwargs=options, daemon=True).start()
    while not address:
        threading.Event().wait(0.05)
    page = browser.new_page(viewport={"width": 1280, "height": 1060}, color_scheme="light")
    page.goto(address[0])
    page.get_by_role("link", name=run.name, exact=True).click()
    page.wait_for_selector(".player .program li")
    page.get_by_role("textbox", name="Problem").fill("9 6 9 3 8")
    page.get_by_role("textbox", name="Problem").press("Enter")
    page.get_by_label("Beside it").select_option(index=page.get_by_label("Beside it").locator("option").count() - 1)
    page.wait_for_timeout(1500)
    page.locator(".player").first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    page.evaluate("document.getElementById('folder').textContent = 'runs'; scrollTo(0, 0)")
    page.screenshot(path=ASSETS / "studio.png")
    save(ASSETS / "studio.png")


def player(browser: Any, run: Path) -> None:
    """The player of the report, in the dark."""
    page = browser.new_page(viewport={"width": 900, "height": 900}, color_scheme="dark")
    page.goto((run / "report.html").resolve().as_uri())
    page.locator(".player").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    page.locator(".player").screenshot(path=ASSETS / "player.png")
    save(ASSETS / "player.png")


def main() -> None:
    """Take both pictures."""
    run = Path(sys.argv[1])
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        studio(browser, run)
        player(browser, run)
        browser.close()


if __name__ == "__main__":
    main()
