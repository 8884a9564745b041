"""The report of a run whose files are damaged, whose task is small, or whose process has settings of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toolbox
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweeping import TINY as TRIAL
from sweeping import write_result

import modelnative as mn
from modelnative.api.evidence import report as write_again
from modelnative.runs.files import read_json, write_json
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio import player, report, tables
from modelnative.studio.report import write_report, write_run_report
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.spec import parse_spec
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

SOURCES = os.pathsep.join(str(Path(__file__).parents[i] / name) for i, name in ((2, "src"), (1, "helpers")))
TINY = {"updates": 2, "episodes": 16, "policy": {"width": 8}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    training = Training.start(
        tmp_path_factory.mktemp("runs") / "run", with_fields(recipe(), {"task": "worlds:Small", **TINY})
    )
    list(training.events())
    write_report(training.run)
    return training.run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    shutil.copytree(finished.path, tmp_path / "run")
    return Run.open(tmp_path / "run")


DAMAGES: dict[str, list[bytes]] = {
    "metrics.jsonl": [b"\xff\xfe\x00\n", b'{"update": 1}\n', b"3\n", b"[]\n", b'{"update": 1, "succ\n{"update": 2}\n'],
    "result.json": [b"", b"{}", b"[1]", b"\xff", b'{"evaluation": {"counts": [{"stage": 3}]}}', b"null"],
    "weights.safetensors": [b"", b"garbage", b"\xff" * 100],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, all in DAMAGES.items() for content in all])
def test_a_damaged_file_is_named_and_the_rest_is_written(run: Run, name: str, content: bytes) -> None:
    (run.path / name).write_bytes(content)
    path, faults = write_run_report(run)
    html = path.read_text(encoding="utf-8")
    assert any(name in fault for fault in faults)
    assert all(len(fault.splitlines()) == 1 for fault in faults)
    assert "Some files of this run are damaged" in html
    assert ("problems solved" in html) == (name != "result.json")
    assert ("<svg" in html) == (name != "metrics.jsonl")
    assert ("Watch it think" in html) == (name != "weights.safetensors")
    assert "Reproduce" in html


def test_an_incomplete_last_line_is_no_damage(run: Run) -> None:
    with run.metrics_path.open("ab") as file:
        file.write(b'{"update": 3, "success": [0.')
    path, faults = write_run_report(run)
    assert faults == []
    assert "<svg" in path.read_text(encoding="utf-8")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def changed(value: object, places: list[int], other: object) -> object:
    """The value with one of its parts, found by following `places`, replaced by another."""
    if not places or not isinstance(value, dict | list) or not value:
        return other
    place, *rest = places
    copy = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    key = list(copy)[place % len(copy)]
    copy[key] = changed(copy[key], rest, other)
    return copy if isinstance(value, dict) else list(copy.values())


@given(st.sampled_from(["result.json", "metrics.jsonl"]), st.lists(st.integers(0, 20), max_size=5), JSON)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_value_in_a_file(finished: Run, name: str, places: list[int], other: object) -> None:
    """The report is written whatever JSON the files hold."""
    path = finished.path / name
    before = path.read_text()
    first, *rest = before.splitlines() if name == "metrics.jsonl" else [before]
    try:
        path.write_text("\n".join([json.dumps(changed(json.loads(first), places, other)), *rest, ""]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(player, "chosen", lambda *arguments: [])
            written, faults = write_run_report(finished)
    finally:
        path.write_text(before)
    assert "Reproduce" in written.read_text(encoding="utf-8")
    assert all(len(fault.splitlines()) == 1 for fault in faults)


def test_everything_damaged(run: Run) -> None:
    for name in DAMAGES:
        (run.path / name).write_bytes(b"\x00\n\x00\n")
    path, faults = write_run_report(run)
    assert len(faults) == len(DAMAGES)
    assert "worlds:Small" in path.read_text(encoding="utf-8")


def test_a_task_that_is_gone(run: Run) -> None:
    config = read_json(run.path / "config.json")
    write_json(run.path / "config.json", config | {"task": "worlds:Gone"})
    path, faults = write_run_report(Run.open(run.path))
    assert any("worlds:Gone" in fault for fault in faults)
    assert "problems solved" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_task_with_few_problems(tmp_path: Path, count: int) -> None:
    """Fewer than five: none of them is held out."""
    assert toolbox.make(count).count(0, "heldout") == 0
    config = with_fields(recipe(), {"task": "toolbox:make", "options": {"count": count}, "split": "all", **TINY})
    training = Training.start(tmp_path / "run", config)
    *_, end = training.events()
    assert isinstance(end, mn.Finished)
    shown = "\n".join(tables.finished(end))
    html = write_report(training.run).read_text(encoding="utf-8")
    for text in (shown, html):
        assert "0/0" not in text
        assert "the 0 held-out" not in text


def test_a_path_that_is_no_text(run: Run, tmp_path: Path) -> None:
    name = os.fsdecode(b"run-\xff <i>")
    try:
        shutil.copytree(run.path, tmp_path / name)
    except OSError:
        pytest.skip("this file system takes no such names")
    path = write_report(Run.open(tmp_path / name))
    assert "run-? &lt;i&gt;" in path.read_text(encoding="utf-8")


def drawings(run: Run) -> list[str]:
    return re.findall(r"<svg.*?</svg>", (run.path / "report.html").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(
    "backend",
    ["nonsense", *(pytest.param(name, marks=pytest.mark.slow) for name in ("module://nowhere.backend", "TkAgg", ""))],
)
def test_pictures_depend_on_no_setting(run: Run, tmp_path: Path, backend: str) -> None:
    write_report(run)
    before = drawings(run)
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 40\nfont.size: 3\naxes.facecolor: black\n")
    code = "import sys, worlds; from modelnative.api.evidence import report; print(report(sys.argv[1]))"
    environment = {**os.environ, "MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path), "PYTHONPATH": SOURCES}
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert drawings(run) == before != []


def test_the_report_can_be_written_again(run: Run) -> None:
    (run.path / "report.html").unlink()
    paths, faults = write_again(run.path)
    assert paths == [run.path / "report.html"]
    assert faults == []
    assert paths[0].exists()


@pytest.mark.parametrize("content", [b"\xff\n[]\n", b'{"update": 1}\n', b'{"update": 1, "success": ["x", {}, []]}\n'])
def test_the_reports_of_a_sweep_can_be_written_again(tmp_path: Path, content: bytes) -> None:
    sweep = Sweep.planned(tmp_path / "seeds", parse_spec({"name": "seeds", "seeds": [0, 1, 2], "base": TRIAL}))
    sweep.write()
    for trial in sweep.trials[:2]:
        made = Run.create(sweep.run(trial).path, trial.config)
        write_result(made, 1.0)
    (sweep.run(sweep.trials[0]).metrics_path).write_bytes(content)
    paths, faults = write_again(sweep.path)
    assert paths == [*(sweep.run(trial).path / "report.html" for trial in sweep.trials[:2]), sweep.report_path]
    assert all(path.exists() for path in paths)
    assert [fault for fault in faults if str(sweep.run(sweep.trials[0]).metrics_path) in fault]
    assert not [fault for fault in faults if str(sweep.run(sweep.trials[1]).metrics_path) in fault]


@pytest.mark.parametrize("folder", ["nothing", "unfinished"])
def test_what_has_no_report(tmp_path: Path, folder: str) -> None:
    Run.create(tmp_path / "unfinished", with_fields(recipe(), {"task": "worlds:Small", **TINY}))
    with pytest.raises(mn.UserError, match=r"is not a run folder|has no result yet; finish it with"):
        write_again(tmp_path / folder)


def test_settings_of_the_process_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 3.0}):
        report._svg([("a", "#000000", [1.0, 2.0], [0.0, 1.0])], None)
        assert mpl.rcParams["font.size"] == 3.0
