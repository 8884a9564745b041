from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import modelnative as mn
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio.figures import KINDS
from modelnative.studio.plot import OF_RUN, OF_SWEEP, write_plot
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.spec import parse_spec
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
    assert suffix[1:] in KINDS


def test_all_curves(run: Run) -> None:
    file = mn.plot(run.path)
    assert file == run.path / "curves.svg"
    assert all(f"<!-- {title} -->" in file.read_text() for title in ("Entropy", "Gradient norm", "Speed"))


def test_what_is_wrong_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(mn.UserError, match=r"out: 'x\.jpeg' is not allowed; expected a file that ends with \.png, "):
        write_plot(run.path, Path("x.jpeg"))
    with pytest.raises(mn.UserError, match="curve: unknown value 'Entrpy'; did you mean 'Entropy'"):
        write_plot(run.path, tmp_path / "x.svg", "Entrpy")
    empty = Run.create(tmp_path / "empty", run.config)
    with pytest.raises(mn.UserError, match="has no update yet; there is nothing to draw"):
        write_plot(empty.path, tmp_path / "x.svg")
    assert not (tmp_path / "x.svg").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with two seeds, of which the first was inspected and its task certified."""
    fields = {"task": "worlds:Small", "updates": 2, "episodes": 16, "policy": {"width": 8}, "threads": 1}
    path = tmp_path_factory.mktemp("plots") / "sweep"
    sweep = Sweep.planned(path, parse_spec({"name": "sweep", "base": fields, "seeds": [0, 1]}))
    sweep.write()
    for trial in sweep.trials:
        list(Training.start(sweep.run(trial).path, trial.config).events())
    run = sweep.run(sweep.trials[0]).path
    mn.inspect(run, stages=["T0"], pairs=30, probes=False, file=run / "inspect.json")
    mn.certify(run, "T0", problems=100, train=False)
    return path


@pytest.mark.parametrize("figure", [*OF_RUN, *OF_SWEEP])
def test_every_figure(whole: Path, tmp_path: Path, figure: str) -> None:
    folder = whole if figure in OF_SWEEP else Sweep.open(whole).run(Sweep.open(whole).trials[0]).path
    files = [mn.plot(folder, tmp_path / f"{name}.svg", figure=figure) for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert mn.plot(folder, tmp_path / "a.png", figure=figure).read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "a.svg").read_text()
    told = {
        "inside": "hidden state",
        "certificate": "oracle",
        "seeds": "T2",
        "comparison": "Wilson",
        "curves": "Entropy",
    }
    assert told[figure] in text


def test_figures_that_cannot_be_drawn(run: Run, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(mn.UserError, match=r"figure: unknown value 'seeds'\. Allowed: curves, inside, certificate"):
        mn.plot(run.path, figure="seeds")
    with pytest.raises(mn.UserError, match=r"figure: unknown value 'curves'\. Allowed: comparison, seeds"):
        mn.plot(whole, figure="curves")
    with pytest.raises(mn.UserError, match=r"inspect\.json: is missing; it is written by: modelnative inspect "):
        mn.plot(run.path, figure="inside")
    with pytest.raises(mn.UserError, match=r"certificate\.json: is missing; it is written by: modelnative certify "):
        mn.plot(run.path, figure="certificate")
    with pytest.raises(mn.UserError, match="curve: 'Success' is not allowed; expected none beside the figure seeds"):
        mn.plot(whole, figure="seeds", curve="Success")
    empty = Sweep.planned(tmp_path / "empty", parse_spec({"name": "empty", "seeds": [0, 1]}))
    empty.write()
    for figure in OF_SWEEP:
        with pytest.raises(mn.UserError, match=r"no (result|update) yet"):
            mn.plot(empty.path, figure=figure)


@pytest.mark.parametrize(
    ("name", "value"),
    [("success", None), ("success", ["x"] * 3), ("stages", [1, 2, 3]), ("entropy", "x"), ("timing", 3)],
)
def test_damaged_metrics_are_one_line(run: Run, tmp_path: Path, name: str, value: object) -> None:
    damaged = shutil.copytree(run.path, tmp_path / "damaged")
    first, *rest = (damaged / "metrics.jsonl").read_text().splitlines()
    lines = [json.dumps({**json.loads(first), name: value}), *rest, ""]
    (damaged / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(mn.UserError, match=r"what the figure curves is drawn from is damaged \(.*Error"):
        mn.plot(damaged, tmp_path / "x.svg")
    assert not (tmp_path / "x.svg").exists()
