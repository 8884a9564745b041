"""Where the output goes: files, pipes whose reader leaves, nothing at all, and terminals of any width."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import modelnative as mn
from modelnative import cli
from modelnative.studio.tables import PIPE_WIDTH, console

ROOT = Path(__file__).parents[2]
TINY = "--task worlds:Small --episodes 16 --policy.width 8 --threads 1 --out run"
Command = Callable[[str], str]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """What a command line that succeeds prints in this process, which is not on a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["modelnative", *shlex.split(line)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("columns", ["0", "-1", "", "wide", "1e2", "99999999999999999999"])
def test_a_width_that_is_none_is_not_taken(shown: Command, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    expected = shown("tasks")
    monkeypatch.setenv("COLUMNS", columns)
    assert shown("tasks") == expected
    assert console().width == PIPE_WIDTH


def test_a_width_is_taken(shown: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    assert console().width == 77
    assert max(map(len, shown("tasks").splitlines())) <= 77


@pytest.mark.parametrize("name", ["FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"])
def test_a_file_is_not_drawn_on(shown: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Colours may be asked for; a file gets lines, not a live view."""
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = re.sub(r"\x1b\[[\d;]*m", "", shown(f"train {TINY} --updates 11"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    assert text.count("update   10  T0") == 1


def test_printed_commands_are_quoted(tmp_path: Path) -> None:
    planned = mn.sweep({"seeds": 2}, tmp_path / "it's mine", on="local", dry_run=True).sweep
    assert shlex.split(planned.resume_command) == ["modelnative", "resume", str(tmp_path / "it's mine")]


def start(script: str, folder: Path) -> subprocess.Popen[str]:
    """A shell script in which $0 is `modelnative`."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "helpers")])
    (folder / "modelnative").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m modelnative "$@"\n')
    (folder / "modelnative").chmod(0o755)
    return subprocess.Popen(
        ["sh", "-c", script, folder / "modelnative"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "script", ['"$0" tasks | head -n 1', '"$0" tasks arithmetic | true', '"$0" schema | head -n 2']
)
def test_a_reader_that_leaves_is_no_news(tmp_path: Path, script: str) -> None:
    out, err = start(f'{{ {script}; }} && echo "$?"', tmp_path).communicate(timeout=120)
    assert (out.splitlines()[-1], err) == ("0", "")


def test_a_training_goes_on_without_its_reader(tmp_path: Path) -> None:
    process = start(f'"$0" train {TINY} --updates 60; echo $? > code', tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    assert "worlds:Small" in process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    process.wait(timeout=120)
    assert (tmp_path / "code").read_text().strip() in ("0", "141")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["evaluation"]["counts"]


@pytest.mark.slow
def test_nothing_is_open(tmp_path: Path) -> None:
    script = f'"$0" tasks >&- && "$0" train {TINY} --updates 2 <&- >&- 2>&-; echo $?'
    out, err = start(script, tmp_path).communicate(timeout=120)
    assert (out, err) == ("0\n", "")
    assert (tmp_path / "run" / "result.json").is_file()
    out, err = start('"$0" trian 2>&-; echo $?', tmp_path).communicate(timeout=120)
    assert (out, err) == ("2\n", "")
