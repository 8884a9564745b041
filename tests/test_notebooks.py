"""The notebooks of the examples: executed from first to last, and kept with what they show."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
# What must be said at the end of a notebook's cells, by their number among the cells of code.
SAYS = {
    "1_first_agent": {2: r"T0=1\.000 ", 3: r"Right", 4: r"Sound"},
    "2_own_tools": {2: r"many=(1\.000|0\.9)", 3: r"Right: answer 600"},
    "3_inside": {
        1: "The donor answers 46",
        2: "The donor answers 46",
        4: "not carried",
        5: r"hidden state: 0 +\d+ of 200",
    },
}


def builder() -> ModuleType:
    pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "_build" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(cell: Any) -> str:
    """All texts of a cell's outputs, without tags."""
    texts = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        found = output.get("text") or data.get("text/html") or data.get("text/plain", "")
        texts.append(re.sub(r"<[^>]+>", " ", "".join(found)))
    return " ".join(texts)


def test_there_are_three() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SAYS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_says_what_it_promises(path: Path) -> None:
    cells = [cell for cell in builder().executed(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for number, pattern in SAYS[path.stem].items():
        assert re.search(pattern, shown(cells[number])), shown(cells[number])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_as_it_was_executed(path: Path) -> None:
    """`python docs/_build/notebooks.py`; and with nothing of the machine that did it."""
    content = path.read_text()
    assert not re.search(r"/home/|/tmp/|/root/|/Users/|site-packages|Traceback", content)
    cells = [cell for cell in json.loads(content)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for number, pattern in SAYS[path.stem].items():
        assert re.search(pattern, shown(cells[number]))
