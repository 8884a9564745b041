"""On a Python without what Windows lacks: see `helpers/as_windows.py`. It shows what is not there, not what differs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).parent / "helpers"
SOURCE = Path(__file__).parent.parent / "src"
BEGIN = "import as_windows; as_windows.become()\n"
ONE_RUN = """
import os
import modelnative as mn
import toolbox
from modelnative import cli
from modelnative.speed.processes import peak_memory
from modelnative.tasks.tools.execution import Caller
from modelnative.training.config import with_fields

fields = {"task": "worlds:Small", "updates": 2, "episodes": 16, "policy": {"width": 8}, "threads": 1}
config = with_fields(mn.recipe(), fields)
mn.train(config=config, out="run")
assert mn.resume("run", updates=4).updates == 4
assert mn.evaluate("run").total().problems > 0
mn.explain("run", stage="T0", problem="1 2 3")
(report,), faults = mn.report("run")
assert report.stat().st_size > 10_000 and not faults
mn.plot("run")
mn.inspect("run", pairs=20, probes=False)
mn.export("run", "agent", "safetensors")
assert cli.run(["doctor"]) == 0
assert peak_memory() == 0
caller = Caller(toolbox.where)
caller.workers = [None]
assert [outcome.value != os.getpid() for outcome in caller([(1,), (2,)])] == [True, True]
"""
SEEDS = """
import sys
from modelnative import cli
sys.argv = ["modelnative", "train", "--seeds", "2", "--out", "seeds", "--updates", "2", "--episodes", "16",
            "--policy.width", "8", "--task", "worlds:Small"]
cli.main()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join([str(tmp_path), str(SOURCE), str(HELPERS)])
    return {**os.environ, "PYTHONPATH": path, "MODELNATIVE_KERNELS": "torch"}


def run(code: str, folder: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_is_trained_and_looked_at(tmp_path: Path, environment: dict[str, str]) -> None:
    run(BEGIN + ONE_RUN, tmp_path, environment)


@pytest.mark.slow
def test_seeds_are_trained_in_processes(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "sitecustomize.py").write_text(BEGIN)  # of every Python that starts here
    run(SEEDS, tmp_path, environment)
    assert len(list((tmp_path / "seeds" / "trials").glob("*/report.html"))) == 2
