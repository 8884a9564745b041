"""The folder of a sweep. What is in it decides what is still to do; nothing else is remembered.

SWEEP/sweep.json            the spec, and every trial's whole configuration
SWEEP/trials/NAME/          a trial: an ordinary run folder
SWEEP/logs/NAME.log         what its processes said
SWEEP/locks/NAME            held by whoever works on it
SWEEP/results.csv           a row a trial, rewritten whenever one ends
SWEEP/comparison.svg, .png  the trials side by side, grouped over seeds
"""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelnative.errors import UserError
from modelnative.runs.files import FORMAT, read_json, write_json
from modelnative.runs.run import Run
from modelnative.sweeps.plan import Trial, plan
from modelnative.sweeps.spec import Spec, differences, parse_spec
from modelnative.training.config import TrainConfig, validate, with_fields

SHOWN = 3  # differences between two specs that an error names


@dataclass(frozen=True)
class Sweep:
    """A folder, the spec that it was made from, and the trials that it was planned into."""

    path: Path
    spec: Spec
    trials: tuple[Trial, ...]

    @classmethod
    def planned(cls, path: Path, spec: Spec) -> Sweep:
        """The sweep in `path`, if it was made from this spec, or else a new one; nothing is written yet.

        Raises:
            UserError: something else is there already, or the spec asks for what is not allowed.
        """
        if cls.exists(path):
            return cls.open(path, spec)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"out: {str(path)!r} exists already and is not a sweep; choose another folder")
        return cls(path, spec, plan(spec))

    def write(self) -> None:
        """Write the plan, if it is new.

        Raises:
            UserError: the place cannot be written.
        """
        if not self.exists(self.path):
            trials = [{"name": t.name, "fields": t.fields, "config": dataclasses.asdict(t.config)} for t in self.trials]
            write_json(self.path / "sweep.json", {"format": FORMAT, "spec": self.spec.as_dict(), "trials": trials})

    @classmethod
    def open(cls, path: Path, spec: Spec | None = None) -> Sweep:
        """Find a sweep. Its trials are those that were planned then, whatever the recipes have become since.

        Args:
            path: the folder.
            spec: what it must have been made from.

        Raises:
            UserError: the folder is not a sweep's, is damaged, or was made from another spec.
        """
        if not cls.exists(path):
            raise UserError(f"sweep: {str(path)!r} is not a sweep folder; expected one made by: modelnative sweep SPEC")
        saved = read_json(path / "sweep.json")
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise UserError(f"{path / 'sweep.json'}: not a modelnative sweep (expected format {FORMAT!r})")
        try:
            trials = tuple(
                Trial(trial["name"], trial["fields"], validate(with_fields(TrainConfig(), trial["config"])))
                for trial in saved["trials"]
            )
            sweep = cls(path, parse_spec(saved["spec"]), trials)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path / 'sweep.json'}: damaged ({type(error).__name__}: {error})") from error
        if spec is not None and (found := differences(spec, sweep.spec)):
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise UserError(
                f"out: {str(path)!r} was made from another spec: {'; '.join(found[:SHOWN])}{more}; choose another "
                f"folder, or finish the old sweep with: modelnative sweep --resume {path}"
            )
        return sweep

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether a sweep was begun there."""
        return (path / "sweep.json").is_file()

    @property
    def results_path(self) -> Path:
        """Where the table is."""
        return self.path / "results.csv"

    def trial(self, name: str) -> Trial:
        """The trial of that name.

        Raises:
            UserError: there is none.
        """
        for trial in self.trials:
            if trial.name == name:
                return trial
        raise UserError(f"trial: {name!r} is not one of the sweep {str(self.path)!r}")

    def run(self, trial: Trial) -> Run:
        """The trial's run, whether or not it has begun."""
        return Run(self.path / "trials" / trial.name, trial.config)

    def log_path(self, name: str) -> Path:
        """Where a trial's processes write what they say."""
        return self.path / "logs" / f"{name}.log"

    def finished(self, trial: Trial) -> bool:
        """Whether the trial has its result."""
        return self.run(trial).result_path.exists()

    @contextmanager
    def lock(self, name: str, patience: float = 0.0) -> Iterator[None]:
        """Hold a name of this folder against all other processes. The system lets go of it however this one ends.

        Args:
            name: a trial's, or `sweep` for the whole.
            patience: seconds to wait for another process that holds it.

        Raises:
            UserError: it is still held, or the system has no such locks.
        """
        try:
            import fcntl  # not at the top: where it is missing, all but sweeps must still work
        except ImportError:
            raise UserError("sweep: not available on this system; expected one with POSIX file locks") from None
        path = self.path / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        deadline = time.monotonic() + patience
        try:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        holder = os.pread(file, 100, 0).decode(errors="replace").strip()
                        raise UserError(
                            f"{path}: held by {holder or 'another process'}, which works on it; wait for it, or end it"
                        ) from None
                    time.sleep(0.1)
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {platform.node()}".encode(), 0)
            yield
        finally:
            os.close(file)
