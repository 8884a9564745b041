"""Ray: the same trials as locally, and errors that come without a long wait."""

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
from modelnative.sweeps.events import SweepEvent, SweepInterrupted, TrialCrashed, TrialStarted
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.on_ray import _require_listener
from modelnative.sweeps.options import SweepOptions, run_sweep
from modelnative.sweeps.spec import parse_spec


@pytest.mark.parametrize("address", ["a", "a:b", ":1", "a:0", "a:70000", "ray://a:1", "a b:1"])
def test_what_is_not_an_address(address: str) -> None:
    with pytest.raises(UserError, match="is not allowed; expected HOST:PORT of a Ray cluster, or auto"):
        _require_listener(address)


def test_an_address_that_does_not_accept_connections() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match="because no Ray cluster accepts connections there"):
            _require_listener(f"127.0.0.1:{port}")  # bound, but not listening
        listener.listen()
        _require_listener(f"127.0.0.1:{port}")


@pytest.fixture
def _ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of Ray find the package and the small test task."""
    pytest.importorskip("ray", reason="needs the extra: ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])


def sweep_of(path: Path, **table: Any) -> Sweep:
    return Sweep.planned(path / "sweep", parse_spec({"base": {**TINY, "updates": UPDATES}, **table}))


@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_on_ray_a_killed_trial_is_retried_and_a_signal_stops(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, seeds=2)
    run, folder = sweep.run(sweep.trials[0]), sweep.path.absolute()
    when(lambda: updates(run) >= 3, lambda: os.kill(processes(folder)[0], signal.SIGKILL))
    first: list[SweepEvent] = []
    for event in run_sweep(sweep, SweepOptions(on="ray", jobs=1), "builtins:id"):
        first.append(event)
        if isinstance(event, TrialCrashed):
            when(lambda: updates(run) >= 8, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert isinstance(first[-1], SweepInterrupted)
    (crashed,) = (event for event in first if isinstance(event, TrialCrashed))
    assert crashed.reason == "killed by SIGKILL"
    wait_for(lambda: not processes(folder), 30)

    second = list(run_sweep(sweep, SweepOptions(on="ray", jobs=1), "builtins:id"))
    assert [event.update >= 8 for event in second if isinstance(event, TrialStarted)] == [True, False]
    assert [row.status for row in second[-1].rows] == ["finished", "finished"]  # type: ignore[union-attr]
    untouched = Training.start(tmp_path / "untouched", crashed.trial.config)
    list(untouched.events())
    assert fingerprint(untouched.run) == fingerprint(sweep.run(crashed.trial))


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
def test_a_trial_too_large_for_every_machine_is_an_error(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    sweep = sweep_of(tmp_path, base={**TINY, **fields})
    with pytest.raises(UserError, match=message):
        list(run_sweep(sweep, SweepOptions(on="ray"), "builtins:id"))
    assert list(tmp_path.iterdir()) == []
