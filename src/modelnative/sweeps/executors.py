"""Executors run the trials of a sweep. Each trial has its own process, so a crash affects one trial only."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelnative.sweeps.folder import Sweep, tail
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.worker import FINISHED, REFUSED, STOPPED
from modelnative.tasks.importing import child_environment

CODE = "import sys; from modelnative.sweeps.worker import main; sys.exit(main(sys.argv[1:]))"
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """How the process of a trial ended.

    Attributes:
        code: exit code; a negative number is the signal that killed the process.
        reason: one line. It counts only if the trial has no result, which an exit code of 0 does not prove.
    """

    code: int
    reason: str = ""

    @property
    def refused(self) -> bool:
        """The trial itself is at fault, so a retry would end in the same way."""
        return self.code == REFUSED

    @property
    def stopped(self) -> bool:
        """The trial stopped on request and can be continued."""
        return self.code in (STOPPED, -signal.SIGTERM)


class Executor(Protocol):
    """Runs several trials at the same time.

    Attributes:
        jobs: number of trials at the same time.
        place: where they run, in words.
    """

    jobs: int
    place: str

    def start(self, trial: Trial) -> None:
        """Start or continue a trial."""

    def poll(self, seconds: float) -> list[tuple[str, Outcome]]:
        """Names and outcomes of the trials that ended since the last call; waits up to `seconds` for the first."""

    def stop(self) -> None:
        """Ask all trials to stop with a checkpoint after the current update; `poll` reports when they have."""

    def close(self) -> None:
        """Kill what still runs. May be called twice."""


class TrialProcess:
    """One trial in a child process. The trial stops when its standard input closes, which includes our own death.

    Args:
        folder: the sweep folder; the output of the process is appended to `logs/NAME.log` in it.
        trial: the trial.
        after_run: `module:function`; the child process calls it with the finished run.
    """

    def __init__(self, folder: Path, trial: Trial, after_run: str) -> None:
        self.log = folder / "logs" / f"{trial.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CODE, str(folder), trial.name, after_run],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=child_environment(trial.config.threads),  # verification, too, uses no more threads
                # Ctrl-C must reach the sweep only, which then stops its trials. The first is for POSIX.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def wait(self, seconds: float) -> Outcome | None:
        """The outcome, or None if the process still runs after `seconds`."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.stop()
        if code < 0:
            return Outcome(code, f"killed by {_signal_name(-code)}")
        lines = [" ".join(line.split()) for line in tail(self.log) if line.strip()]
        return Outcome(code, lines[-1] if lines and code != FINISHED else f"exit code {code} without a result")

    def stop(self) -> None:
        """Ask the trial to stop after the current update."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """Kill the process. The newest checkpoint remains."""
        self._process.kill()
        self._process.wait()
        self.stop()


class LocalExecutor:
    """Runs trials in processes on this machine.

    Args:
        sweep: the sweep.
        jobs: number of trials at the same time.
        after_run: `module:function`, called with each finished run.
    """

    def __init__(self, sweep: Sweep, jobs: int, after_run: str) -> None:
        self.jobs = jobs
        self.place = "in local processes"
        self._sweep = sweep
        self._after_run = after_run
        self._running: dict[str, TrialProcess] = {}

    def start(self, trial: Trial) -> None:
        self._running[trial.name] = TrialProcess(self._sweep.path, trial, self._after_run)

    def poll(self, seconds: float) -> list[tuple[str, Outcome]]:
        deadline = time.monotonic() + seconds
        while True:
            found = [(name, outcome) for name, process in self._running.items() if (outcome := process.wait(0))]
            for name, _ in found:
                del self._running[name]
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        for process in self._running.values():
            process.stop()

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
        self._running.clear()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"
