"""The folder of a sweep. Its content alone decides which trials are still to be done.

SWEEP/sweep.json            the specification, and the whole configuration of each trial
SWEEP/trials/NAME/          an ordinary run folder for each trial
SWEEP/logs/NAME.log         the output of the trial's processes
SWEEP/locks/NAME.lock       held by the process that works on the trial
SWEEP/notes/NAME.json       what the task has to say to its author, if anything
SWEEP/results.csv           one row for each trial, rewritten when a trial ends
SWEEP/comparison.svg, .png  the trials side by side, grouped over seeds
SWEEP/report.html           the seeds side by side, if the trials differ in their seed only
"""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from modelnative.errors import UserError, require_number, require_path
from modelnative.runs.files import FORMAT, Held, InFolder, read_json, write_json
from modelnative.runs.run import Run
from modelnative.runs.upgrade import FORMATS
from modelnative.sweeps.plan import Trial, plan
from modelnative.sweeps.spec import MAX_TRIALS, Spec, differences, parse_spec
from modelnative.tasks.importing import require_trusted, trust_flags
from modelnative.training.config import TrainConfig, with_fields

MAX_DIFFERENCES = 3  # that an error names


@dataclass(frozen=True)
class Sweep:
    """A sweep folder, the specification that it was made from, and its trials."""

    path: Path
    spec: Spec
    trials: tuple[Trial, ...]

    report_path = InFolder("report.html")
    results_path = InFolder("results.csv")

    @classmethod
    def planned(cls, path: Path, spec: Spec) -> Sweep:
        """The existing sweep in `path` if it was made from this spec, otherwise a new one; nothing is written yet.

        Raises:
            UserError: `path` holds something else, or the spec is not allowed.
        """
        require_path("out", path)
        if cls.exists(path):
            return cls.open(path, spec)
        if _in_use(path):
            raise UserError(f"out: {str(path)!r} exists already and is not a sweep; choose another folder")
        return cls(path, spec, plan(spec))

    @classmethod
    def of_seeds(cls, config: TrainConfig, seeds: int, path: Path) -> Sweep:
        """A sweep with one trial for each of the seeds `config.seed`, `config.seed + 1`, …; nothing is written yet.

        The run of seed N is in `path/trials/seed-N`. Each trial has one thread unless `config.threads` says otherwise.
        Its weights are bit-identical to those of the same training alone.

        Raises:
            UserError: a field is not allowed, or `path` exists already.

        Example:
            >>> sweep = Sweep.of_seeds(TrainConfig(seed=3), 2, Path("runs/two"))
            >>> [(trial.name, trial.config.seed, trial.config.threads) for trial in sweep.trials]
            [('seed-3', 3, 1), ('seed-4', 4, 1)]
        """
        require_number("seeds", seeds, 1, MAX_TRIALS, f"from 1 to {MAX_TRIALS:,}")
        require_path("out", path)
        if _in_use(path):
            raise UserError(
                f"out: {str(path)!r} exists already; choose another folder, or continue it with: "
                f"modelnative resume {shlex.quote(str(path))}{trust_flags([vars(config)])}"
            )
        fields = config.model_dump()
        first = fields.pop("seed")
        name = re.sub(r"[^\w.-]", ".", config.task)
        spec = parse_spec({"name": name, "seeds": list(range(first, first + seeds)), "base": fields})
        return cls(path, spec, tuple(replace(trial, name=f"seed-{trial.config.seed}") for trial in plan(spec)))

    def write(self) -> None:
        """Write `sweep.json`, unless it exists.

        Raises:
            UserError: the folder cannot be written.
        """
        if not self.exists(self.path):
            trials = [{"name": t.name, "fields": t.fields, "config": t.config.model_dump()} for t in self.trials]
            write_json(self.path / "sweep.json", {"format": FORMAT, "spec": vars(self.spec), "trials": trials})

    @classmethod
    def open(cls, path: Path, spec: Spec | None = None, *, trusted: bool = False) -> Sweep:
        """Open an existing sweep. Its trials are read from the folder; later changes of recipes do not affect them.

        Args:
            path: the folder.
            spec: if given, the sweep must have been made from this spec.
            trusted: whether all names in it may be imported; see `require_trusted`.

        Raises:
            UserError: the folder is not a sweep, is damaged, or was made from another spec.
        """
        require_path("sweep", path)
        if not cls.exists(path):
            raise UserError(f"sweep: {str(path)!r} is not a sweep folder; expected one made by: modelnative sweep SPEC")
        saved = read_json(path / "sweep.json")
        if isinstance(saved, dict) and saved.get("format") == FORMATS[0]:
            raise UserError(
                f"{path / 'sweep.json'}: made by an earlier version, whose sweeps cannot be continued; its finished "
                "trials can be evaluated"
            )
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise UserError(f"{path / 'sweep.json'}: not a modelnative sweep (expected format {FORMAT!r})")
        try:
            for trial in [] if trusted else saved["trials"]:
                require_trusted(path / "sweep.json", trial["config"])
            trials = tuple(
                Trial(trial["name"], trial["fields"], with_fields(TrainConfig(), trial["config"]))
                for trial in saved["trials"]
            )
            sweep = cls(path, parse_spec(saved["spec"]), trials)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path / 'sweep.json'}: damaged ({type(error).__name__}: {error})") from error
        if spec is not None and (found := differences(spec, sweep.spec)):
            more = f" and {len(found) - MAX_DIFFERENCES} more" if len(found) > MAX_DIFFERENCES else ""
            raise UserError(
                f"out: {str(path)!r} was made from another spec: {'; '.join(found[:MAX_DIFFERENCES])}{more}; choose "
                f"another folder, or finish the old sweep with: {sweep.resume_command}"
            )
        return sweep

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether the folder is a sweep."""
        return (path / "sweep.json").is_file()

    @property
    def seeds_only(self) -> bool:
        """Whether the trials differ in their seed only."""
        return all(set(trial.fields) == {"seed"} for trial in self.trials)

    @property
    def resume_command(self) -> str:
        """The command that continues this sweep."""
        command = "resume" if self.seeds_only else "sweep --resume"
        trusted = trust_flags(vars(trial.config) for trial in self.trials)
        return f"modelnative {command} {shlex.quote(str(self.path))}{trusted}"

    def trial(self, name: str) -> Trial:
        """The trial with a name.

        Raises:
            UserError: there is none.
        """
        for trial in self.trials:
            if trial.name == name:
                return trial
        raise UserError(f"trial: {name!r} is not one of the sweep {str(self.path)!r}")

    def run(self, trial: Trial) -> Run:
        """The run of a trial, whether or not it exists yet."""
        return Run(self.path / "trials" / trial.name, trial.config)

    def finished(self, trial: Trial) -> bool:
        """Whether the trial has its result."""
        return self.run(trial).result_path.exists()

    def checkpoint(self, trial: Trial) -> int:
        """The update of a trial's newest checkpoint; 0 without one."""
        return max((int(path.stem) for path in self.run(trial).checkpoints()), default=0)

    def notes(self, trial: Trial) -> list[str]:
        """What the task of a trial has to say to its author, as far as the trial has found it out; see `Task.notes`."""
        path = self._notes_path(trial)
        found = read_json(path) if path.exists() else []
        return [note for note in found if isinstance(note, str)] if isinstance(found, list) else []

    def write_notes(self, trial: Trial, notes: list[str]) -> None:
        """Write what the task of a trial has to say.

        Raises:
            UserError: the folder cannot be written.
        """
        if notes != self.notes(trial):
            write_json(self._notes_path(trial), notes)

    def _notes_path(self, trial: Trial) -> Path:
        return self.path / "notes" / f"{trial.name}.json"

    @contextmanager
    def lock(self, name: str, timeout: float = 0.0) -> Iterator[Held]:
        """Hold a lock of this folder against other processes. The system releases it when this process dies.

        Args:
            name: the name of a trial, or `sweep` for the whole sweep.
            timeout: seconds to wait for another process that holds it.

        Raises:
            UserError: another process still holds it.
        """
        path = self.path / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = path.with_name(f"{name}.holder")  # a file of its own, because Windows locks the content, too
        try:
            with FileLock(path.with_name(f"{name}.lock"), timeout=timeout) as lock:
                holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
                yield Held(lock, self.path, "sweep")
        except Timeout:
            found = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
            raise UserError(f"{path}: held by {found}; wait until it ends, or stop it") from None


def _in_use(path: Path) -> bool:
    """Whether anything but an empty folder is there. What a kill before `sweep.json` leaves behind does not count."""
    return path.exists() and (not path.is_dir() or any(file.name != "sweep.json.partial" for file in path.iterdir()))


def tail(path: Path, size: int = 8192) -> list[str]:
    """The lines at the end of a file that may be long and may grow, so many bytes; empty if it does not exist."""
    if not path.exists():
        return []
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read().decode(errors="replace").split("\n")
