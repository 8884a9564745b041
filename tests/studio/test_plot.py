from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import modelnative as mn
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio.plot import KINDS, write_plot
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training that has not ended."""
    config = with_fields(recipe(), {"task": "worlds:Small", "updates": 3, "episodes": 16, "policy": {"width": 8}})
    training = Training.start(tmp_path_factory.mktemp("runs") / "run", config)
    for event in training.events():
        if len(training.run.metrics()) == 2:
            break
        assert event is not None
    return training.run


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_every_kind_of_file(run: Run, tmp_path: Path, suffix: str, start: bytes) -> None:
    files = [mn.plot(run.path, tmp_path / f"{name}{suffix}", curve="Entropy") for name in "ab"]
    assert files[0].read_bytes().startswith(start)
    assert files[0].read_bytes() == files[1].read_bytes(), "equal runs give equal files"
    assert suffix in KINDS


def test_all_curves(run: Run) -> None:
    file = mn.plot(run.path)
    assert file == run.path / "curves.svg"
    assert all(f"<!-- {title} -->" in file.read_text() for title in ("Entropy", "Gradient norm", "Speed"))


def test_what_is_wrong_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(mn.UserError, match=r"out: 'x\.jpeg' is not allowed; expected a file that ends with \.png, "):
        write_plot(run, Path("x.jpeg"))
    with pytest.raises(mn.UserError, match="curve: unknown value 'Entrpy'; did you mean 'Entropy'"):
        write_plot(run, tmp_path / "x.svg", "Entrpy")
    empty = Run.create(tmp_path / "empty", run.config)
    with pytest.raises(mn.UserError, match="has no update yet; there is nothing to draw"):
        write_plot(empty, tmp_path / "x.svg")
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("success", None), ("success", ["x"] * 3), ("stages", [1, 2, 3]), ("entropy", "x"), ("timing", 3)],
)
def test_damaged_metrics_are_one_line(run: Run, tmp_path: Path, name: str, value: object) -> None:
    damaged = shutil.copytree(run.path, tmp_path / "damaged")
    first, *rest = (damaged / "metrics.jsonl").read_text().splitlines()
    lines = [json.dumps({**json.loads(first), name: value}), *rest, ""]
    (damaged / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(mn.UserError, match=r"metrics\.jsonl: a line is damaged \(.*Error"):
        mn.plot(damaged, tmp_path / "x.svg")
    assert not (tmp_path / "x.svg").exists()
