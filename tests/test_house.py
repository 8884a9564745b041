"""The project as a whole: start-up time, file sizes, names, metadata, pinned versions, and the examples.

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
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import modelnative

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
HEAVY = {"torch", "numpy", "safetensors", "matplotlib", "jinja2", "gymnasium"}  # each costs a person's patience
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)

# What each example prints at the end of its short training.
EXAMPLES = {
    "own_algorithm.py": r"DrGRPO 40 .*\n(.*\n)*DAPO 40 \d+ .* \[(1\.0|0\.[5-9])",
    "own_core.py": r"60 .* \[(1\.0|0\.9\d*), (1\.0|0\.9\d*), ",
    "own_curriculum.py": r"30 \['', '', '', '', ''\] \[0\.[1-9]",
    "own_logger.py": r"update 20: T0=0\.[1-9].*\n20 updates in metrics\.csv: T0=0\.[1-9].*\n20,(\d+(\.\d+)?,?){4}\n",
    "own_task.py": r"certified\nafter 20 updates: D2=(1\.000|0\.[89]\d\d) ",
    "own_tools.py": r"success: convert=0\.[1-9](.|\n)*oracle:  celsius a from_kelvin b minus R1 R2 ANS R3\n",
    "train_and_explain.py": r"T0=(1\.000|0\.9\d\d) (.|\n)*oracle:  3 MUL 7 ADD 2 ANS\n(.|\n)*success: True\n",
}


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
    "tests/sweeps/test_any_spec.py",
    "tests/sweeps/test_spec.py",
    "tests/test_house.py",
}


def test_every_module_can_be_read_in_one_sitting() -> None:
    files = [path for path in SOURCE.rglob("*") if path.suffix in (".py", ".cpp", ".h")]
    sizes = {path: len(path.read_text().splitlines()) for path in files}
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


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned() -> None:
    assert all(re.fullmatch(r"[\w.!]+", pin) for pin in PINS.values())
    declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert {normal(Requirement(entry).name) for entry in declared} <= {normal(name) for name in PINS}


def test_every_dependency_has_a_lower_bound() -> None:
    """And nothing else, because `.ci/lowest` installs it."""
    bounds = [str(Requirement(entry).specifier) for entry in PROJECT["dependencies"]]
    assert all(re.fullmatch(r">=[\d.]+", bound) for bound in bounds)


def test_the_core_is_at_most_36_packages() -> None:
    """Without torch's accelerator libraries, which differ from machine to machine."""
    found: set[str] = set()
    waiting = [Requirement(entry) for entry in PROJECT["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = normal(requirement.name)
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if needed and name not in found and not name.startswith(("nvidia-", "cuda-", "triton")):
            found.add(name)
            waiting += [Requirement(entry) for entry in requires(requirement.name) or []]
    assert {"torch", "sympy"} <= found
    assert len(found | {"modelnative"}) <= 36, sorted(found)


def test_there_is_one_version_number() -> None:
    assert "version" in PROJECT["dynamic"]
    assert version("modelnative") == modelnative.__version__
    assert "version:" not in (ROOT / "CITATION.cff").read_text().replace("cff-version:", "")


def test_pre_commit_runs_the_pinned_versions() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    hooks = dict(re.findall(r"repo: https://github\.com/(\S+)\n +rev: v(\S+)", text))
    assert hooks == {
        "astral-sh/ruff-pre-commit": PINS["ruff"],
        "pre-commit/mirrors-clang-format": PINS["clang-format"],
    }


def test_actions_are_pinned_by_commit() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    used = [line.strip() for file in workflows for line in file.read_text().splitlines() if "uses:" in line]
    assert len(used) > 5
    assert [line for line in used if not re.fullmatch(r"- uses: [\w./-]+@[0-9a-f]{40} # v[\d.]+", line)] == []
    actions = {line.split("@")[0] for line in used}
    assert len(set(used)) == len(actions), "one version of each action"


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


def test_every_example_is_run() -> None:
    elsewhere = {"onnx_agent.py"}  # tests/bridges/test_export.py: it needs an exported agent
    assert {file.name for file in (ROOT / "examples").glob("*.py")} == set(EXAMPLES) | elsewhere


LONG = ("own_tools.py", "train_and_explain.py")


@pytest.mark.parametrize(
    "example", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in EXAMPLES]
)
def test_an_example_prints_what_it_promises(example: str, tmp_path: Path) -> None:
    done = python("-W", "error", str(ROOT / "examples" / example), cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(EXAMPLES[example], done.stdout), done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/howto/install.md", "docs/quickstart.md"])
def test_whoever_installs_by_hand_is_told_of_the_small_build_of_torch(page: str) -> None:
    text = (ROOT / page).read_text()
    found = re.search(r"pip install (-e|'\.|modelnative)", text)
    if found is not None:
        assert "download.pytorch.org/whl/cpu" in text[: found.start()], "before the package, which would bring CUDA"
