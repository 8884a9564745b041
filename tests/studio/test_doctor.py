from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from modelnative import native
from modelnative.cli.doctor import doctor
from modelnative.studio import doctor as module
from modelnative.studio.doctor import OPTIONAL, REQUIRED, Check, examine, lines

ROOT = Path(__file__).parents[2]


def by_name() -> dict[str, Check]:
    return {check.name: check for check in examine()}


def test_every_fact_is_there_once(capsys: pytest.CaptureFixture[str]) -> None:
    names = [check.name for check in examine()]
    assert len(set(names)) == len(names)
    assert doctor(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == names
    for name in ("modelnative", "torch", "threads", "devices", "compilers", "cache folders", "kernels", "disk", "ray"):
        assert found[name]["value"]


def test_the_page_is_one_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert doctor([]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) <= 40
    long = [line for line in shown if len(line) > 80]
    assert all(len(line.split()) <= 2 for line in long), "nothing but a long path is wider"


def test_a_gap_has_a_remedy() -> None:
    shown = list(lines([Check("disk", "full", "Empty it."), Check("torch", "fine")], 80))
    assert shown == ["disk   full", "       → Empty it.", "torch  fine", "", "1 gap: see the arrows."]
    assert list(lines([Check("torch", "fine")], 80))[-1] == "Nothing is missing."


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compilers", list)
    monkeypatch.setattr(native, "kernels", lambda: native.Kernels(None, None, ("no C++ compiler is installed",)))
    monkeypatch.setattr(native, "describe", lambda: "torch (no C++ compiler is installed)")
    found = by_name()
    assert found["compilers"].value == "none"
    assert "apt install g++" in found["compilers"].advice
    assert found["kernels"].value == "torch (no C++ compiler is installed)"
    assert "twice as long" in found["kernels"].advice


def test_a_cache_folder_that_does_not_serve_is_named_although_another_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = ("/home/x: No space left on device",)
    found = native.Kernels(ctypes.CDLL(None), Path("/tmp/k.so"), reasons)
    monkeypatch.setattr(native, "kernels", lambda: found)
    monkeypatch.setattr(native, "describe", lambda: "native")
    assert by_name()["kernels"] == Check("kernels", "native, from /tmp/k.so; not /home/x: No space left on device")


def test_doctor_uses_public_names_only() -> None:
    assert not re.search(r"\b(native|build)\._", Path(module.__file__).read_text())


def test_variables_that_change_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = by_name()
    assert "unset them" in found["launcher"].advice
    assert "OMP_NUM_THREADS=1" in found["environment"].value
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    assert by_name()["threads"] == Check(
        "threads",
        "1 of 3 usable cores",
        "OMP_NUM_THREADS=1 leaves cores unused; unset it, unless other work needs them.",
    )


def test_what_fails_is_said_and_the_rest_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise OSError("no such device")

    monkeypatch.setattr(module.shutil, "disk_usage", fail)
    found = by_name()
    assert found["disk"].value.startswith("cannot be found out: OSError: no such device")
    assert found["disk"].advice
    assert "torch" in found


def test_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch is broken')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])}
    command = [sys.executable, "-m", "modelnative", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["torch"]["value"].startswith("cannot be imported: ImportError: libtorch is broken")
    assert "pip install torch" in found["torch"]["advice"]
    assert found["disk"]["value"]


def test_the_packages_are_those_of_the_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"\W", dependency)[0] for dependency in project["dependencies"]]
    assert {*REQUIRED, "torch"} == set(names)
    assert set(OPTIONAL) <= set(project["optional-dependencies"])
