"""Take the pictures of the studio and of the report for the documentation.

    modelnative train --checkpoint-every 10 --keep-checkpoints 20 --out runs/first
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


def serve(folder: Path) -> str:
    """The address of a studio that runs as long as this process."""
    address: list[str] = []
    options = {"port": 0, "started": address.append}
    threading.Thread(target=mn.serve, args=(folder,), kwargs=options, daemon=True).start()
    while not address:
        threading.Event().wait(0.05)
    return address[0]


def opened(browser: Any, address: str, run: Path, height: int) -> Any:
    """A page that shows a run and one problem."""
    page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme="light")
    page.goto(address)
    page.get_by_role("link", name=run.name, exact=True).click()
    page.wait_for_selector(".player .program li")
    page.get_by_role("textbox", name="Problem", exact=True).fill("9 6 9 3 8")
    page.get_by_role("textbox", name="Problem", exact=True).press("Enter")
    page.wait_for_timeout(1500)
    return page


def inside(browser: Any, address: str, run: Path) -> None:
    """What is carried where, and an exchange of the whole policy state."""
    page = opened(browser, address, run, 1800)
    page.get_by_text("Inside: what is carried").click()
    page.get_by_role("button", name="Inspect this stage").click()
    page.wait_for_selector(".player .carried")
    page.get_by_role("combobox", name="Replace", exact=True).select_option("whole policy state")
    page.get_by_role("combobox", name="before action").select_option("6")
    page.get_by_role("textbox", name="Donor problem").fill("4 5 7 2 6")
    page.get_by_role("button", name="Replace", exact=True).click()
    page.wait_for_selector(".panel .words")
    page.wait_for_timeout(500)
    top, end = (page.locator(name).first.bounding_box() for name in (".player .inside", ".panel .side"))
    area = {"x": 0, "y": top["y"] - 10, "width": 1280, "height": end["y"] + 460 - top["y"]}
    page.screenshot(path=ASSETS / "studio-inside.png", clip=area, full_page=True)
    save(ASSETS / "studio-inside.png")


def through(browser: Any, address: str, run: Path) -> None:
    """One problem, by all checkpoints."""
    page = opened(browser, address, run, 1600)
    page.get_by_text("Through the training").click()
    page.get_by_role("button", name="Play it by every checkpoint").click()
    page.wait_for_selector(".scrub input")
    page.wait_for_timeout(500)
    panel, player = (page.locator(".panel").nth(1), page.locator(".panel").nth(1).locator(".player"))
    top, end = panel.bounding_box(), player.bounding_box()
    area = {"x": 0, "y": top["y"] - 10, "width": 1280, "height": end["y"] - top["y"]}
    page.screenshot(path=ASSETS / "studio-through.png", clip=area, full_page=True)
    save(ASSETS / "studio-through.png")


def studio(browser: Any, address: str, run: Path) -> None:
    """A problem, solved by the newest weights and by an old checkpoint."""
    page = opened(browser, address, run, 1060)
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
    """Take all pictures."""
    run = Path(sys.argv[1])
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        address = serve(run.parent)
        for take in (studio, inside, through):
            take(browser, address, run)
        player(browser, run)
        browser.close()


if __name__ == "__main__":
    main()
