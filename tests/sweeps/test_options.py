"""Options: which combinations are allowed, and that nothing is written for the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweeping import TINY

from modelnative.errors import UserError
from modelnative.sweeps import options as module
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.options import SweepOptions, check_all, run_sweep
from modelnative.sweeps.plan import plan
from modelnative.sweeps.spec import Spec, parse_spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SweepOptions(on="rya"), "on: unknown value 'rya'; did you mean 'ray'?"),
        (SweepOptions(jobs=0), "jobs: 0 is not allowed; expected at least 1"),
        (SweepOptions(retries=-1), "retries: -1 is not allowed; expected 0 or more"),
        (SweepOptions(on="local", address="a:1"), "address: 'a:1' is not allowed with --on local"),
        (SweepOptions(on="ray"), r"on: 'ray' needs Ray, .* install it with: pip install 'ray>=2.40'"),
        (SweepOptions(address="a:1"), "address: 'a:1' needs Ray"),
    ],
)
def test_bad_options_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: SweepOptions, message: str
) -> None:
    monkeypatch.setattr(module, "installed", lambda: False)
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"base": TINY}))
    with pytest.raises(UserError, match=message):
        next(run_sweep(sweep, options, "builtins:id"))
    assert list(tmp_path.iterdir()) == []


def test_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, place in ((True, "ray"), (False, "local")):
        monkeypatch.setattr(module, "installed", lambda available=available: available)
        assert SweepOptions().place == place
        assert SweepOptions(on="local").place == "local"
        assert SweepOptions(address="a:1").place == "ray"


def test_without_ray_it_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: False)
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"base": TINY}))
    for on, text in (("auto", "in local processes, as Ray is not installed (pip install"), ("local", "in local proc")):
        started = next(events := run_sweep(sweep, SweepOptions(on=on), "builtins:id"))
        events.close()
        assert started.place.startswith(text)
        assert "\n" not in started.place


def test_jobs_are_as_many_as_there_are_cores_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    for threads, jobs in ((1, 8), (3, 2), (16, 1)):
        sweep = Sweep(tmp_path / str(threads), Spec("x"), plan(parse_spec({"base": {**TINY, "threads": threads}})))
        started = next(events := run_sweep(sweep, SweepOptions(on="local"), "builtins:id"))
        events.close()
        assert started.jobs == jobs


def test_a_device_that_only_a_cluster_may_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "installed", lambda: True)
    sweep = Sweep.planned(tmp_path / "sweep", parse_spec({"base": {**TINY, "device": "cuda"}}))
    check_all(sweep, SweepOptions(on="ray"))
    monkeypatch.setattr("modelnative.runs.training.require_device", _refuse)
    with pytest.raises(UserError, match="trial base: no such device"):
        check_all(sweep, SweepOptions(on="local"))


def _refuse(device: str) -> None:
    raise UserError("no such device")
