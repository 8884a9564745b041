"""The trials on Ray: on this machine by default, on a cluster by its address. Needs the extra `ray`.

A Ray task starts the same process as a local sweep would and waits for it, so that a trial is the same wherever it is:
it dies alone, continues from its checkpoint, and stops when whoever waits for it is gone. Retries are the sweep's.
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
from modelnative.sweeps.executors import Outcome, Process
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.worker import CRASHED, STOPPED

INSTALL = "pip install 'modelnative[ray]'"


def installed() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec("ray") is not None


class RayCrew:
    """Tasks of a Ray cluster, each with as many CPUs as its trial has threads, and a GPU if it computes on one.

    Args:
        sweep: whose trials.
        address: the cluster's; by default what the variable RAY_ADDRESS says, else a new one on this machine.
        jobs: how many at once; by default as many as there are CPUs for.
        afterwards: `module:function`, to be given each finished run.

    Raises:
        UserError: the address does not answer, or the cluster could never take a trial.
    """

    def __init__(self, sweep: Sweep, address: str | None, jobs: int | None, afterwards: str) -> None:
        for device in sorted({trial.config.device for trial in sweep.trials}):
            if device.startswith("cuda:"):
                raise UserError(f"device: {device!r} is not allowed on Ray, which hands out the GPUs; expected cuda")
        where = address or os.environ.get("RAY_ADDRESS") or "local"
        threads = max(trial.config.threads for trial in sweep.trials)
        self._ray, self._ours = _connect(where, threads * jobs if jobs and where == "local" else None)
        self._sweep = sweep
        self._afterwards = afterwards
        self._running: dict[Any, str] = {}
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = int(sum(machine.get("CPU", 0) for machine in machines))
        self.jobs = jobs or max(1, cpus // threads)
        self.place = f"on Ray at {where} ({cpus} CPUs)" if where != "local" else f"on Ray on this machine ({cpus} CPUs)"
        for trial in sweep.trials:
            # A task that no machine can take would wait for ever.
            needs = {"CPU": trial.config.threads, "GPU": _gpus(trial)}
            if not any(all(machine.get(kind, 0) >= n for kind, n in needs.items()) for machine in machines):
                self.close()
                raise UserError(
                    f"trial {trial.name}: it needs {needs['CPU']} CPUs and {needs['GPU']} GPUs, more than any machine "
                    f"has {self.place}; expected fewer threads, or device cpu"
                )
        self._task = self._ray.remote(_carry_out)

    def start(self, trial: Trial) -> None:
        task = self._task.options(name=trial.name, num_cpus=trial.config.threads, num_gpus=_gpus(trial), max_retries=0)
        reference = task.remote(
            str(self._sweep.path),
            trial.name,
            str(self._sweep.log_path(trial.name)),
            trial.config.threads,
            self._afterwards,
        )
        self._running[reference] = trial.name

    def ended(self, seconds: float) -> list[tuple[str, Outcome]]:
        if not self._running:
            return []
        waiting = list(self._running)
        done, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds)
        return [(self._running.pop(reference), self._outcome(reference)) for reference in done]

    def _outcome(self, reference: Any) -> Outcome:
        try:
            code, said = self._ray.get(reference)
            return Outcome(code, said)
        except self._ray.exceptions.TaskCancelledError:
            return Outcome(STOPPED)
        except self._ray.exceptions.RayTaskError as error:  # its last line is the exception in the task
            return Outcome(CRASHED, str(error).strip().splitlines()[-1])
        except self._ray.exceptions.RayError as error:  # the task's process or its machine died
            return Outcome(CRASHED, f"{type(error).__name__}: {next(iter(str(error).splitlines()), '').rstrip('.')}")

    def stop(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=False)

    def close(self) -> None:
        for reference in self._running:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reference, force=True)  # its pipe closes, so that the trial stops, too
        self._running.clear()
        if self._ours and self._ray.is_initialized():
            self._ray.shutdown()


def _gpus(trial: Trial) -> int:
    return int(trial.config.device.startswith("cuda"))


def _connect(where: str, cpus: int | None) -> tuple[Any, bool]:
    """The module, and whether the connection is ours to end: a program may have its own."""
    # The user's sweep is nobody else's business.
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
        # Ray says the same of a cluster that refused the token; its own log on standard error tells them apart.
        reason = f"{' '.join(str(error).split())[:200]}; if it asks for a token, set RAY_AUTH_TOKEN"
        raise _no_cluster(where, reason) from error
    return ray, True


def _require_listener(address: str) -> None:
    """Raise a `UserError` unless someone listens there; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not re.fullmatch(r"[\w.-]+|\[[\da-fA-F:.]+\]", host) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"address: {address!r} is not allowed; expected HOST:PORT of a Ray cluster, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(
        f"address: {address!r} is not allowed, because no Ray cluster lets us in there ({reason}); expected HOST:PORT "
        "of one, or auto for the one on this machine"
    )


def _carry_out(folder: str, name: str, log: str, threads: int, afterwards: str) -> tuple[int, str]:
    """The body of a Ray task: one trial, to its end or until the task is cancelled."""
    # Where the sweep ignores SIGINT, as in the background of a shell, Ray's processes inherit that, and cannot cancel.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = Process(Path(folder), name, Path(log), threads, afterwards)
    while True:
        try:
            outcome = process.wait(1.0)
        except KeyboardInterrupt:  # so Ray cancels
            process.stop()
            outcome = None
        if outcome is not None:
            return outcome.code, outcome.said
