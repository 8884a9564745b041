"""The house as a whole: what starting up costs, what the package declares, and that the examples run.

The direction of imports is held by import-linter (`make test`, contract in pyproject.toml).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import modelnative

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
HEAVY = {"torch", "numpy", "safetensors", "matplotlib", "jinja2", "gymnasium"}  # each costs a person's patience
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python(*arguments: str, cwd: Path | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run this Python on the package as it lies in src/, in a process of its own."""
    path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def heavy_imports(code: str) -> list[str]:
    """Which heavy packages are loaded once `code` has run."""
    report = f"import json, sys; print(json.dumps(sorted({HEAVY!r} & set(sys.modules))), file=sys.stderr)"
    done = python("-c", f"{code}\n{report}")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stderr.splitlines()[-1]))


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert heavy_imports("import modelnative") == []


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from modelnative.cli import main
sys.argv = ["modelnative", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert heavy_imports(code) == []


def test_help_takes_under_half_a_second() -> None:
    def cpu_seconds() -> float:
        before = os.times()
        assert python("-m", "modelnative", "--help").returncode == 0
        after = os.times()
        return (after.children_user - before.children_user) + (after.children_system - before.children_system)

    # Time of the processor, not of the wall, and the best of three: other workers share the machine.
    assert min(cpu_seconds() for _ in range(3)) < 0.5


def test_help_names_every_command() -> None:
    shown = python("-m", "modelnative", "--help").stdout
    for command in ("train", "resume", "sweep", "evaluate", "explain", "tasks", "certify", "bench", "tutorial"):
        assert re.search(rf"\b{command}\b", shown), f"{command} is missing from:\n{shown}"


# What a stranger reads to know how it learns: the update, the rollout, the loss, the policy and the GRU.
PLAIN_PATH = (
    "training/trainer.py",
    "training/rollout.py",
    "training/loss.py",
    "policies/policy.py",
    "policies/cores/gru.py",
)
OLD_WORDS = re.compile(
    r"\b(heed|heard|rethink|Thought|Lesson|Choices|behaviour|scale_by_deviation|cool_from|tutorial-gru|dials?|"
    r"paper_schedule|update_together|max_gradient_norm|train_seeds|resume_seeds|resume_sweep|make_curriculum)\b"
)
HISTORY = {
    "docs/migration.md",
    "CHANGELOG.md",
    "src/modelnative/runs/upgrade.py",
    "tests/runs/test_upgrade.py",
    "tests/test_house.py",
}


def test_every_module_can_be_read_in_one_sitting() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
    assert {str(path): size for path, size in sizes.items() if size > 400} == {}


@pytest.mark.parametrize("name", PLAIN_PATH)
def test_the_plain_path_is_short_and_mentions_no_kernels(name: str) -> None:
    text = (SOURCE / "modelnative" / name).read_text()
    assert len(text.splitlines()) <= 300
    assert not re.search(r"kernel|ctypes|C\+\+", text, re.IGNORECASE)


def test_words_that_were_replaced_are_gone() -> None:
    folders = ("src", "tests", "docs", "examples", "benchmarks")
    files = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".j2", ".toml")
    ]
    found = {}
    for path in [*files, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        name = path.relative_to(ROOT).as_posix()
        if name not in HISTORY and (match := OLD_WORDS.search(path.read_text())):
            found[name] = match[0]
    assert found == {}


def test_every_dependency_is_pinned() -> None:
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = {normal(line.split("==")[0]) for line in lines if line}
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines if line), "a pin is name==version"
    declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert {normal(re.match(r"[\w.-]+", entry).group()) for entry in declared} <= pins


def test_wheel_is_pure_typed_and_whole(tmp_path: Path) -> None:
    done = python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"modelnative-{modelnative.__version__}-py3-none-any.whl"
    packed = set(zipfile.ZipFile(wheel).namelist())
    source = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.is_file()}
    assert {name for name in source if "__pycache__" not in name} <= packed
    assert "modelnative/py.typed" in packed
    assert any(name.endswith("/licenses/LICENSE") for name in packed)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    done = python("-W", "error", str(example), cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip(), "an example shows something"
