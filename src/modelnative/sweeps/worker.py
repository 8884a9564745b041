"""What a trial's own process does: lock the trial's folder, start or continue its training, stop when its leader dies.

Arguments: SWEEP TRIAL MODULE:FUNCTION; the function is given the finished run. Standard input is a pipe from the
process that started this one. Nobody writes to it: it is closed when that process ends, by whatever death, and then
this one stops after the update under way, with a checkpoint. So no trial outlives its sweep for long; and as long as it
does, the lock keeps a second process out of its folder.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import signal
import sys
import threading
from pathlib import Path

from modelnative.errors import UserError

FINISHED, CRASHED, REFUSED, STOPPED = 0, 1, 2, 128 + signal.SIGTERM  # exit codes
PATIENCE = 120.0  # seconds for another process to finish its update and leave the folder


def main(arguments: list[str]) -> int:
    """Train one trial to its end; returns the exit code. What went wrong is the last line on standard error."""
    # Before anything slow is imported: until a training has its own handler, the signal ends this process at once.
    threading.Thread(target=_follow_leader, daemon=True).start()
    folder, name, afterwards = arguments
    try:
        return _work(Path(folder), name, afterwards)
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr)  # noqa: T201 (into the trial's log)
        return REFUSED


def _follow_leader() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _work(folder: Path, name: str, afterwards: str) -> int:
    from modelnative.runs.training import Finished, Interrupted, Training
    from modelnative.sweeps.folder import Sweep

    if not Sweep.exists(folder):
        raise UserError(
            f"sweep: {str(folder)!r} is not there on {platform.node()}; expected a folder that all machines share"
        )
    sweep = Sweep.open(folder)
    trial = sweep.trial(name)
    run = sweep.run(trial)
    with sweep.lock(name, PATIENCE):
        if not run.result_path.exists():
            if run.checkpoints():
                training = Training.resume(run.path)
                if training.run.config != trial.config:
                    raise UserError(f"{run.path / 'config.json'}: not the configuration that the sweep planned for it")
            else:
                # Killed before its first checkpoint, or never begun: nothing is there that could be lost.
                shutil.rmtree(run.path, ignore_errors=True)
                training = Training.start(run.path, trial.config)
            for event in training.events():
                if isinstance(event, Interrupted):
                    return STOPPED
                if isinstance(event, Finished):
                    run = event.run
        module, _, function = afterwards.partition(":")
        getattr(importlib.import_module(module), function)(run)
    return FINISHED
