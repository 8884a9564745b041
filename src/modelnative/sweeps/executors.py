"""Who carries the trials out: processes of this machine. Each trial has its own, so that a death is one trial's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.plan import Trial
from modelnative.sweeps.worker import FINISHED, REFUSED, STOPPED

CODE = "import sys; from modelnative.sweeps.worker import main; sys.exit(main(sys.argv[1:]))"
STEP = 0.05  # seconds between two looks at the processes


@dataclass(frozen=True)
class Outcome:
    """How a trial's process ended.

    Attributes:
        code: its exit code; below 0 the signal that killed it.
        said: the reason in one line, where it did not finish.
    """

    code: int
    said: str = ""

    @property
    def finished(self) -> bool:
        """The trial has its result."""
        return self.code == FINISHED

    @property
    def refused(self) -> bool:
        """The trial itself is at fault: another try would end the same."""
        return self.code == REFUSED

    @property
    def stopped(self) -> bool:
        """It stopped because it was asked to; it can be continued."""
        return self.code in (STOPPED, -signal.SIGTERM)


class Crew(Protocol):
    """Carries trials out, several at once.

    Attributes:
        jobs: how many at once.
        place: where, for people.
    """

    jobs: int
    place: str

    def start(self, trial: Trial) -> None:
        """Begin or continue a trial."""

    def ended(self, seconds: float) -> list[tuple[str, Outcome]]:
        """The names of trials that have ended since the last call; waits at most so long for the first."""

    def stop(self) -> None:
        """Ask all trials to stop after the update under way, with a checkpoint; `ended` tells when they have."""

    def close(self) -> None:
        """End whatever still runs, at once; may be called twice."""


class Process:
    """One trial in a process at the end of a pipe. When the pipe closes, also because we died, the trial stops.

    Args:
        folder: the sweep's.
        name: the trial's.
        log: gets what the process says.
        threads: CPU threads.
        afterwards: `module:function`, to be given the finished run.
    """

    def __init__(self, folder: Path, name: str, log: Path, threads: int, afterwards: str) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            # The trial imports what this process could: a task beside the script that asked for the sweep, say.
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "OMP_NUM_THREADS": str(threads),  # of verification, too, which would take all cores
        }
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CODE, str(folder), name, afterwards],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the sweep, which passes it on
            )

    def wait(self, seconds: float) -> Outcome | None:
        """How it ended; None if it still runs after so many seconds."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.stop()
        if code < 0:
            return Outcome(code, f"killed by {_signal(-code)}")
        last = _last_line(self.log)
        return Outcome(code, "" if code == FINISHED else last or f"exit code {code}")

    def stop(self) -> None:
        """Ask it to stop after the update under way."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """End it at once. Its newest checkpoint stands."""
        self._process.kill()
        self._process.wait()
        self.stop()


class LocalCrew:
    """Processes of this machine.

    Args:
        sweep: whose trials.
        jobs: how many at once.
        afterwards: `module:function`, to be given each finished run.
    """

    def __init__(self, sweep: Sweep, jobs: int, afterwards: str) -> None:
        self.jobs = jobs
        self.place = "in local processes"
        self._sweep = sweep
        self._afterwards = afterwards
        self._running: dict[str, Process] = {}

    def start(self, trial: Trial) -> None:
        self._running[trial.name] = Process(
            self._sweep.path, trial.name, self._sweep.log_path(trial.name), trial.config.threads, self._afterwards
        )

    def ended(self, seconds: float) -> list[tuple[str, Outcome]]:
        deadline = time.monotonic() + seconds
        while True:
            found = [(name, outcome) for name, process in self._running.items() if (outcome := process.wait(0))]
            for name, _ in found:
                del self._running[name]
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(STEP)

    def stop(self) -> None:
        for process in self._running.values():
            process.stop()

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
        self._running.clear()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"


def _last_line(log: Path) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
