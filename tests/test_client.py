"""A user's program against the built wheel: the package that users get is whole, typed and needs no source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import modelnative

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "client" / "client.py"
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel, and the dependencies of this environment but not its modelnative."""
    work = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", work, ROOT, cwd=work)
    (wheel,) = work.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", work / "venv", cwd=work)
    made = work / "venv" / "bin" / "python"
    (site,) = (work / "venv" / "lib").glob("python*/site-packages")
    # A path file is not read within a folder that another path file names: the editable modelnative stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    run(sys.executable, "-m", "pip", "--python", made, "install", "--no-deps", "--no-index", wheel, cwd=work)
    return made


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy(PROGRAM, tmp_path))


def test_it_is_the_wheel_that_is_imported(python: Path, tmp_path: Path) -> None:
    shown = run(python, "-c", "import modelnative; print(modelnative.__file__)", cwd=tmp_path).strip()
    assert Path(shown).is_relative_to(python.parents[1])


def test_it_runs(python: Path, program: Path) -> None:
    shown = run(python, "-W", "error", program, cwd=program.parent)
    assert shown.startswith(f"{modelnative.__version__}: ")
    assert shown.endswith(" of 30 problems solved\n")


def test_its_types_are_right(python: Path, program: Path) -> None:
    shown = run(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, program, cwd=program.parent)
    assert shown == "Success: no issues found in 1 source file\n"


def test_a_wrong_type_is_found(python: Path, program: Path) -> None:
    """Otherwise the test above could pass because the wheel has no types."""
    program.write_text(program.read_text().replace('algorithm="grpo"', "algorithm=3"))
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), str(program)]
    done = subprocess.run(command, cwd=program.parent, capture_output=True, text=True, timeout=600)
    assert 'has incompatible type "int"; expected "str"' in done.stdout


def test_the_commands_run(python: Path, tmp_path: Path) -> None:
    command = python.with_name("modelnative")
    run(command, "train", "--out", "run", "--updates", "2", cwd=tmp_path)
    assert (tmp_path / "run" / "report.html").is_file()
    (tmp_path / "sweep.toml").write_text(
        "seeds = 2\n[base]\nupdates = 2\nepisodes = 16\nstages = 1\npolicy.width = 8\n"
    )
    run(command, "sweep", "sweep.toml", "--out", "sweep", cwd=tmp_path)
    assert len((tmp_path / "sweep" / "results.csv").read_text().splitlines()) == 3
