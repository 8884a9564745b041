"""The folder of a sweep: what it stores, and that one process at a time works on it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sweeping import TINY, environment

from modelnative.errors import UserError
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.spec import Spec, parse_spec

SPEC = parse_spec({"name": "x", "seeds": 2, "base": TINY})


def test_a_sweep_opens_as_planned(tmp_path: Path) -> None:
    sweep = Sweep.planned(tmp_path / "sweep", SPEC)
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"
    sweep.write()
    assert Sweep.open(tmp_path / "sweep") == sweep
    assert Sweep.planned(tmp_path / "sweep", SPEC) == sweep
    assert sweep.trial(sweep.trials[1].name) is sweep.trials[1]
    with pytest.raises(UserError, match="trial: 'z' is not one of the sweep"):
        sweep.trial("z")


def test_another_spec_is_an_error_that_says_what_differs(tmp_path: Path) -> None:
    Sweep.planned(tmp_path / "sweep", SPEC).write()
    other = parse_spec({"seeds": 3, "base": {**TINY, "updates": 9}})
    with pytest.raises(UserError, match=r"another spec: seeds: \[0, 1, 2\] instead of \[0, 1\]; base.updates: 9 inst"):
        Sweep.planned(tmp_path / "sweep", other)
    renamed = Spec("y", SPEC.base, SPEC.grid, SPEC.trials, SPEC.seeds)
    assert Sweep.planned(tmp_path / "sweep", renamed).spec == SPEC, "a name may change"


def test_folders_that_are_not_sweeps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a sweep folder"):
        Sweep.open(tmp_path)
    (tmp_path / "mine").write_text("precious")
    for path in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UserError, match="exists already and is not a sweep"):
            Sweep.planned(path, SPEC)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match="not a modelnative sweep"):
        Sweep.open(tmp_path)
    (tmp_path / "sweep.json").write_text('{"format": "modelnative/2", "trials": [3]}')
    with pytest.raises(UserError, match="damaged"):
        Sweep.open(tmp_path)
    (tmp_path / "sweep.json").write_text('{"format": "modelnative/1", "trials": [3]}')
    with pytest.raises(UserError, match="made by an earlier version, whose sweeps cannot be continued"):
        Sweep.open(tmp_path)


def test_a_lock_excludes_others_until_its_holder_dies(tmp_path: Path) -> None:
    sweep = Sweep.planned(tmp_path / "sweep", SPEC)
    sweep.write()
    code = f"""
import time, worlds
from pathlib import Path
from modelnative.sweeps.folder import Sweep
with Sweep.open(Path({str(sweep.path)!r})).lock("sweep"):
    print("held", flush=True)
    time.sleep(100)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"held by process {holder.pid} on "), sweep.lock("sweep"):
            pass
        with sweep.lock("another"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with sweep.lock("sweep", timeout=10):
            pass
