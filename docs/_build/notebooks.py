"""Execute the notebooks of examples/notebooks, and keep what they show.

    python docs/_build/notebooks.py             # all of them, each in a folder of its own that is removed afterwards

Nothing of the machine is kept: no times, paths or versions but Python's name.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"
SOURCE = Path(__file__).parents[2] / "src"
SECONDS = 300  # for a cell
LONGEST = 200  # characters of the plain form of what is shown as a table


def executed(path: Path) -> Any:
    """The notebook with the outputs of a run of all its cells; an error in one of them is raised."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(SOURCE), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
        client = NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}}, record_timing=False
        )
        client.execute(env=environment)
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data and len(data.get("text/plain", "")) > LONGEST:
                data["text/plain"] = f"{data['text/plain'][:LONGEST]} …"
    return notebook


def main() -> None:
    """Execute all, or those that are named."""
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        print(path)


if __name__ == "__main__":
    main()
