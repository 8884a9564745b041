"""`modelnative inspect`: its tables, its files."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import planted
import pytest
from rich.console import Console

import modelnative as mn
from modelnative import cli
from modelnative.runs.training import Training
from modelnative.studio import inspection, report
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe


def shown(found: mn.Inspection, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        for part in inspection.page(found.as_dict()):
            console.print(part)
    return capture.get()


def test_the_tables_fit_into_80_columns() -> None:
    found = mn.inspect(planted.Inside(), planted.Notebook(), pairs=100)
    text = shown(found, 80)
    assert max(map(len, text.splitlines())) <= 80
    row = next(line for line in text.splitlines() if line.startswith(" hidden state "))
    assert re.fullmatch(r" hidden state +2 +\d+ +1\.000 +0\.000 +1\.000 +0\.\d{3} +carried at 2-4 *", row)
    assert (
        "Carried by: hidden state (actions 2-4), whole policy state (actions 2-4), feedback (actions 1)."
        in " ".join(text.split())
    )


def test_the_command_writes_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fields = {"task": "planted:Notebook", "updates": 1, "episodes": 16, "threads": 1, "policy": {"width": 8}}
    list(Training.start(Path("run"), with_fields(recipe(), fields)).events())
    assert cli.run(["inspect", "run", "--pairs", "40"]) == 0
    assert "without" in capsys.readouterr().out
    written = json.loads(Path("run/inspect.json").read_text())
    assert written["format"].startswith("modelnative/")
    assert [stage["stage"] for stage in written["stages"]] == ["only"]
    assert cli.run(["inspect", "run", "--stage", "only", "--pairs", "40", "--json", "--out", "other.json"]) == 0
    assert json.loads(capsys.readouterr().out) == {k: v for k, v in written.items() if k != "format"}
    assert Path("other.json").read_bytes() == Path("run/inspect.json").read_bytes()
    monkeypatch.setattr(report, "charts", lambda *_, **__: [])  # which take longest
    mn.report("run")
    html = Path("run/report.html").read_text()
    assert "What is inside" in html
    carriers = [verdict["carrier"] for verdict in written["stages"][0]["verdicts"]]
    assert all(f"<tr><th>{carrier}</th>" in html for carrier in carriers)
    Path("run/inspect.json").write_text('{"stages": [{}]}')
    _, (fault,) = mn.report("run")
    assert fault.startswith("run/inspect.json: KeyError: 'keys'")


def test_the_heat_map_shows_the_share_that_followed() -> None:
    found = mn.inspect(planted.Outside(), planted.Notebook(), pairs=100, probes=False)
    (section,) = inspection.sections(found.as_dict())
    rows = {carrier: [cell.followed for cell in cells] for carrier, _, cells in section.rows}
    assert section.keys == (1, 2, 3, 4)
    assert rows["register"] == [None, 1.0, 1.0, 0.0]
    assert rows["feedback"] == [0.0, None, None, 1.0]
