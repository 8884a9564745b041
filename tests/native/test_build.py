"""Where the kernels come from, and what happens where they cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelnative.errors import UserError
from modelnative.native import build

needs_a_compiler = pytest.mark.skipif(build.library() is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and nothing known of former calls."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "library", build.library.__wrapped__)


def no_compiler(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)


@needs_a_compiler
def test_it_is_compiled_once(tmp_path: Path) -> None:
    assert build.library() is not None
    (made,) = (tmp_path / "cache" / "modelnative").iterdir()
    before = made.stat().st_mtime_ns
    assert build.library() is not None
    assert made.stat().st_mtime_ns == before
    assert build.describe() == "native"


@needs_a_compiler
def test_a_cache_that_cannot_be_written_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: str(tmp_path))
    assert build.library() is not None
    assert list(tmp_path.glob("modelnative-*/kernels-*.so"))


def test_without_a_compiler_torch_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_compiler(monkeypatch, tmp_path)
    assert build.library() is None
    assert "g++" in build.describe()


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_compiler(monkeypatch, tmp_path)
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'out of order' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv(build.CHOICE, "native")
    with pytest.raises(UserError, match=r"MODELNATIVE_KERNELS: native is not possible here: .*out of order"):
        build.library()


def test_torch_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.CHOICE, "torch")
    assert build.library() is None
    assert build.describe() == "torch (MODELNATIVE_KERNELS=torch)"


def test_a_wrong_choice_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.CHOICE, "natve")
    with pytest.raises(UserError, match="'natve'; did you mean 'native'"):
        build.library()


def test_a_training_learns_with_torch_alone(tmp_path: Path) -> None:
    """The plain path from the command line; what it computes is compared in `test_kernels.py`."""
    command = [sys.executable, "-m", "modelnative", "train", "--out", str(tmp_path / "run"), "--updates", "3"]
    environment = {**os.environ, build.CHOICE: "torch"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
