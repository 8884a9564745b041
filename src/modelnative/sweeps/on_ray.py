"""Runs trials on Ray: on this machine, or on a cluster given by its address. Needs the extra `ray`.

A Ray task starts the same process as a local sweep and waits for it. A trial therefore behaves in the same way
everywhere: a crash affects it alone, it continues from its checkpoint, and it stops when its parent process is gone.
The sweep, not Ray, retries trials.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

from modelnative.errors import UserError
from modelnative.sweeps.executors import Outcome, TrialProcess
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.worker import CRASHED, STOPPED

INSTALL = "pip install 'ray>=2.40'"  # what the extra `ray` adds, wherever this package was installed from


def installed() -> bool:
    """Whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


class RayExecutor:
    """Runs each trial as a Ray task with one CPU for each thread of the trial, and one GPU if its device is `cuda`.

    Args:
        sweep: the sweep.
        address: address of the cluster; by default the variable RAY_ADDRESS, else a new cluster on this machine.
        jobs: number of trials at the same time; by default as many as there are CPUs for.
        after_run: `module:function`, called with each finished run.

    Raises:
        UserError: the address does not answer, or no machine of the cluster is large enough for a trial.
    """

    def __init__(self, sweep: Sweep, address: str | None, jobs: int | None, after_run: str) -> None:
        for device in sorted({trial.config.device for trial in sweep.trials}):
            if device.startswith("cuda:"):
                raise UserError(f"device: {device!r} is not allowed on Ray, which hands out the GPUs; expected cuda")
        where = address or os.environ.get("RAY_ADDRESS") or "local"
        threads = max(trial.config.threads for trial in sweep.trials)
        self._ray, self._owns_connection = _connect(where, threads * jobs if jobs and where == "local" else None)
        self._sweep = sweep
        self._after_run = after_run
        self._running: dict[Any, str] = {}
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = int(sum(machine.get("CPU", 0) for machine in machines))
        self.jobs = jobs or max(1, cpus // threads)
        self.place = f"on Ray at {where} ({cpus} CPUs)" if where != "local" else f"on Ray on this machine ({cpus} CPUs)"
        for trial in sweep.trials:
            # Ray would wait forever for a machine that is large enough.
            needs = {"CPU": trial.config.threads, "GPU": _gpus(trial)}
            if not any(all(machine.get(kind, 0) >= n for kind, n in needs.items()) for machine in machines):
                self.close()
                raise UserError(
                    f"trial {trial.name}: it needs {needs['CPU']} CPUs and {needs['GPU']} GPUs, more than any machine "
                    f"has {self.place}; expected fewer threads, or device cpu"
                )
        self._task = self._ray.remote(_run_trial)

    def start(self, trial: Trial) -> None:
        task = self._task.options(name=trial.name, num_cpus=trial.config.threads, num_gpus=_gpus(trial), max_retries=0)
        self._running[task.remote(self._sweep.path, trial, self._after_run)] = trial.name

    def poll(self, seconds: float) -> list[tuple[str, Outcome]]:
        if not self._running:
            return []
        waiting = list(self._running)
        done, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds)
        return [(self._running.pop(reference), self._outcome(reference)) for reference in done]

    def _outcome(self, reference: Any) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(reference)
            return outcome
        except self._ray.exceptions.TaskCancelledError:
            return Outcome(STOPPED)
        except self._ray.exceptions.RayTaskError as error:  # its last line is the exception inside the task
            return Outcome(CRASHED, str(error).strip().splitlines()[-1])
        except self._ray.exceptions.RayError as error:  # the task's process or its machine died
            return Outcome(CRASHED, f"{type(error).__name__}: {next(iter(str(error).splitlines()), '').rstrip('.')}")

    def stop(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=False)

    def close(self) -> None:
        for reference in self._running:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reference, force=True)  # its pipe closes, so the trial stops
        self._running.clear()
        if self._owns_connection and self._ray.is_initialized():
            self._ray.shutdown()


def _gpus(trial: Trial) -> int:
    return int(trial.config.device.startswith("cuda"))


def _connect(where: str, cpus: int | None) -> tuple[Any, bool]:
    """The module `ray`, connected, and whether we made the connection and must close it."""
    # No usage statistics are sent unless the user asks for them.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        return ray, False
    if where not in ("local", "auto"):
        _require_listener(where)
    try:
        local = {"num_cpus": cpus, "include_dashboard": False} if where == "local" else {}
        ray.init(address=where, log_to_driver=False, logging_level="error", **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        # Ray raises the same error when a cluster refuses the token; its log on standard error shows the difference.
        reason = f"{' '.join(str(error).split())[:200]}; if it asks for a token, set RAY_AUTH_TOKEN"
        raise _no_cluster(where, reason) from error
    return ray, True


def _require_listener(address: str) -> None:
    """Raise a `UserError` unless the address accepts connections; Ray itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    if not re.fullmatch(r"[\w.-]+|\[[\da-fA-F:.]+\]", host) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"address: {address!r} is not allowed; expected HOST:PORT of a Ray cluster, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(
        f"address: {address!r} is not allowed, because no Ray cluster accepts connections there ({reason}); "
        "expected HOST:PORT of a cluster, or auto for the one on this machine"
    )


def _run_trial(folder: Path, trial: Trial, after_run: str) -> Outcome:
    """The body of a Ray task: runs one trial until it ends or the task is cancelled."""
    # A shell starts background jobs with SIGINT ignored. Ray's processes inherit that and could not be cancelled.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = TrialProcess(folder, trial, after_run)
    while True:
        try:
            outcome = process.wait(1.0)
        except KeyboardInterrupt:  # how Ray cancels a task
            process.stop()
            outcome = None
        if outcome is not None:
            return outcome
