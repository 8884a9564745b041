"""The live view of a training in a notebook."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest

import modelnative as mn
from modelnative.studio import notebook_view
from modelnative.studio.notebook_view import NotebookView

pytest.importorskip("IPython", reason="needs the extra `notebook`")
FIELDS = {"updates": 4, "episodes": 16, "policy": {"width": 8}, "threads": 1}


class Shown:
    """In the place of IPython.display: what was shown, in order."""

    HTML = str

    def __init__(self) -> None:
        self.pictures: list[str] = []
        self.displays = 0

    def display(self, picture: str, display_id: bool) -> Any:
        assert display_id
        self.displays += 1
        self.update(picture)
        return self

    def update(self, picture: str) -> None:
        self.pictures.append(picture)


def test_one_picture_is_redrawn_in_place(tmp_path: Path) -> None:
    view, shown = NotebookView(seconds=0), Shown()
    view._shown = shown
    finished = mn.train("worlds:Small", out=tmp_path / "run", callbacks=[view], **FIELDS)
    assert shown.displays == 1
    updates = [re.search(r"update (\d+) ", picture) for picture in shown.pictures]
    assert [match and int(match[1]) for match in updates] == [1, 2, 3, 4, 4]
    assert html.escape(finished.evaluation.line()) in shown.pictures[-1]
    for stage in ("T0", "T1", "T2"):
        assert f"<td>{stage}</td>" in shown.pictures[-1]
    again = Shown()
    view._shown = again
    mn.train("worlds:Small", out=tmp_path / "again", callbacks=[view], **FIELDS)
    assert (again.displays, len(again.pictures)) == (1, 5), "another training has a picture of its own"


def test_it_draws_seldom_and_keeps_few_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook_view, "POINTS", 8)
    view, shown = NotebookView(seconds=1000), Shown()
    view._shown = shown
    mn.train("worlds:Small", out=tmp_path / "run", callbacks=[view], **{**FIELDS, "updates": 40})
    assert len(shown.pictures) == 2, "the first update, and the end"
    assert all(4 <= len(curve) <= 8 for curve in view._curves)
    assert view._curves[0][-1][0] > 30


def test_texts_are_escaped(tmp_path: Path) -> None:
    view, shown = NotebookView(seconds=0), Shown()
    view._shown = shown
    mn.train("worlds:Small", out=tmp_path / "run", callbacks=[view], **FIELDS)
    view._stages = ("<img src=x>", "T1", "T2")
    view._notes = ["<script>"]
    assert "<img" not in view.html()
    assert "<script>" not in view.html()


def test_it_is_shown_by_ipython(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mn.train("worlds:Small", out=tmp_path / "run", callbacks=[NotebookView(seconds=0)], **FIELDS)
    assert "<IPython.core.display.HTML object>" in capsys.readouterr().out
