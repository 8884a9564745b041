"""The process of one trial: locks the trial, starts or continues its training, stops when its parent process dies.

Arguments: SWEEP TRIAL MODULE:FUNCTION; the function is called with the finished run. Standard input is a pipe from the
parent process. Nothing is written to it; it closes when the parent asks the trial to stop, or dies in any way. The
trial then stops after the current update, with a checkpoint. Until it has stopped, its lock keeps other processes out.
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
LOCK_SECONDS = 120.0  # to wait for another process that still works on the trial


def main(arguments: list[str]) -> int:
    """Train one trial; returns the exit code. The last line on standard error says what went wrong."""
    # Before any slow import: until the training has its own handler, the signal ends this process at once.
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    folder, name, after_run = arguments
    try:
        return _train(Path(folder), name, after_run)
    except UserError as error:
        print(" ".join(str(error).split()), file=sys.stderr)  # noqa: T201 (into the log of the trial)
        return REFUSED


def _stop_with_parent() -> None:
    while os.read(0, 1024):
        pass
    signal.raise_signal(signal.SIGTERM)  # os.kill would end the process without a checkpoint on Windows


def _train(folder: Path, name: str, after_run: str) -> int:
    from modelnative.runs.events import Finished, Interrupted
    from modelnative.runs.run import Run
    from modelnative.runs.training import Training
    from modelnative.sweeps.folder import Sweep
    from modelnative.tasks.importing import NAMES, trust
    from modelnative.training.events import Started

    if not Sweep.exists(folder):
        raise UserError(
            f"sweep: {str(folder)!r} does not exist on {platform.node()}; expected a folder that all machines share"
        )
    sweep = Sweep.open(folder, trusted=True)  # the process that started this one has judged the names
    trial = sweep.trial(name)
    trust(*(getattr(trial.config, field) for field in NAMES))
    run = sweep.run(trial)
    with sweep.lock(name, LOCK_SECONDS):
        if not run.result_path.exists():
            if Run.exists(run.path):
                training = Training.resume(run.path)
                if training.run.config != trial.config:
                    raise UserError(f"{run.path / 'config.json'}: not the configuration that the sweep planned for it")
            else:
                shutil.rmtree(run.path, ignore_errors=True)  # it was killed before it began
                training = Training.start(run.path, trial.config)
            for event in training.events():
                if isinstance(event, (Started, Finished)) and event.trainer is not None:
                    sweep.write_notes(trial, event.trainer.task.notes())
                if isinstance(event, Interrupted):
                    return STOPPED
                if isinstance(event, Finished):
                    run = event.run
        module, _, function = after_run.partition(":")
        getattr(importlib.import_module(module), function)(run)
    return FINISHED
