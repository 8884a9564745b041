"""On Ray: the same trials, and errors that do not take minutes."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from sweeping import TINY, UPDATES, environment, fingerprint, processes, updates, wait_for, when

from modelnative.errors import UserError
from modelnative.runs.training import Training
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.on_ray import _require_listener
from modelnative.sweeps.options import Options, carry_out
from modelnative.sweeps.scheduler import Event, SweepInterrupted, TrialBegun, TrialDied
from modelnative.sweeps.spec import parse_spec


@pytest.mark.parametrize("address", ["a", "a:b", ":1", "a:0", "a:70000", "ray://a:1", "a b:1"])
def test_what_is_not_an_address(address: str) -> None:
    with pytest.raises(UserError, match="is not allowed; expected HOST:PORT of a Ray cluster, or auto"):
        _require_listener(address)


def test_an_address_where_nobody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match="because no Ray cluster lets us in there"):
            _require_listener(f"127.0.0.1:{port}")  # bound, but not listening
        listener.listen()
        _require_listener(f"127.0.0.1:{port}")


@pytest.fixture
def _ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself: its processes find the package and the small world."""
    pytest.importorskip("ray", reason="needs the extra: ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])


def sweep_of(path: Path, **table: Any) -> Sweep:
    return Sweep.planned(path / "sweep", parse_spec({"base": {**TINY, "updates": UPDATES}, **table}))


@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_on_ray_what_is_killed_is_tried_again_and_a_signal_stops(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=2)
    run, folder = sweep.run(sweep.trials[0]), sweep.path.absolute()
    when(lambda: updates(run) >= 3, lambda: os.kill(processes(folder)[0], signal.SIGKILL))
    first: list[Event] = []
    for event in carry_out(sweep, Options(on="ray", jobs=1), "builtins:id"):
        first.append(event)
        if isinstance(event, TrialDied):
            when(lambda: updates(run) >= 8, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert isinstance(first[-1], SweepInterrupted)
    (died,) = (event for event in first if isinstance(event, TrialDied))
    assert died.reason == "killed by SIGKILL"
    wait_for(lambda: not processes(folder), 30)

    second = list(carry_out(sweep, Options(on="ray", jobs=1), "builtins:id"))
    assert [event.update >= 8 for event in second if isinstance(event, TrialBegun)] == [True, False]
    assert [row.status for row in second[-1].rows] == ["finished", "finished"]  # type: ignore[union-attr]
    untouched = Training.start(tmp_path / "untouched", died.trial.config)
    list(untouched.events())
    assert fingerprint(untouched.run) == fingerprint(sweep.run(died.trial))


@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threads": 4096}, "it needs 4096 CPUs and 0 GPUs, more than any machine has on Ray on this machine"),
        ({"device": "cuda:1"}, "device: 'cuda:1' is not allowed on Ray, which hands out the GPUs; expected cuda"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_what_the_cluster_can_never_give_is_an_error(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    sweep = sweep_of(tmp_path, base={**TINY, **fields})
    with pytest.raises(UserError, match=message):
        list(carry_out(sweep, Options(on="ray"), "builtins:id"))
    assert list(tmp_path.iterdir()) == []
