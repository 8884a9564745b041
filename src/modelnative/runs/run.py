"""The run folder.

RUN/config.json             every field of the training; written last when a run is made
RUN/task.json               what identifies the task, so that a later edit is noticed
RUN/metrics.jsonl           a line an update; all but its `timing` is reproducible
RUN/alarms.jsonl            what audits found wrong, a line an alarm; missing as long as there is none
RUN/checkpoints/000050.safetensors   weights, optimizer, curriculum, counters; the newest `keep_checkpoints`
RUN/weights.safetensors     the best verified policy
RUN/result.json             the verdict on it, and what the training cost
RUN/inspect.json            what `modelnative inspect RUN` found, if it was called
RUN/certificate.json        what `modelnative certify RUN` measured of the task, if it was called
RUN/report.html             learning curves and results, for people
RUN/run.lock                held by the process that trains
"""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelnative.errors import UserError, require_path
from modelnative.policies.config import PolicyConfig
from modelnative.policies.contract import Policy
from modelnative.policies.registry import make_policy
from modelnative.runs.files import (
    FORMAT,
    Held,
    InFolder,
    append_lines,
    flush,
    hold,
    read_json,
    read_lines,
    read_tensors,
    write_json,
    write_lines,
    write_tensors,
)
from modelnative.runs.result import Result
from modelnative.runs.upgrade import FORMATS, upgraded_config
from modelnative.tasks import make_task
from modelnative.tasks.contract.fingerprint import differences, fingerprint
from modelnative.tasks.contract.task import AnyTask
from modelnative.tasks.importing import require_trusted, trust_flags
from modelnative.training.checkpoint import restore, state_of
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.trainer import Trainer

# What a training leaves that was killed before its configuration was written: nothing is lost with it.
UNBEGUN = re.compile(r"run\.lock|config\.json\.partial|task\.json(\.partial)?|checkpoints|0+\.safetensors(\.partial)?")
PASS_AGAIN = "a policy or curriculum that was passed as an object must be passed again: policy=..., curriculum=..."


@dataclass(frozen=True)
class Run:
    """A folder, and the configuration in it."""

    path: Path
    config: TrainConfig

    fingerprint_path = InFolder("task.json")
    result_path = InFolder("result.json")
    report_path = InFolder("report.html")
    inspection_path = InFolder("inspect.json")
    certificate_path = InFolder("certificate.json")
    metrics_path = InFolder("metrics.jsonl")
    alarms_path = InFolder("alarms.jsonl")
    weights_path = InFolder("weights.safetensors")

    @classmethod
    def create(cls, path: Path, config: TrainConfig, first: Callable[[Run], object] | None = None) -> Run:
        """Make the folder; `first` writes the first checkpoint, before the configuration makes it a run.

        Raises:
            UserError: something is there already, or the place cannot be written.
        """
        run = cls(path, config)
        run.require_new()
        try:
            if first is not None:
                first(run)
            run.write_config()
        except UserError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return run

    def require_new(self) -> None:
        """Raise a `UserError` unless the folder is missing, empty, or that of a training that did not begin."""
        path = self.path
        require_path("out", path)
        begun = (file for file in path.rglob("*") if not UNBEGUN.fullmatch(file.name))
        if path.exists() and (not path.is_dir() or any(begun)):
            raise UserError(
                f"out: {str(path)!r} exists already; choose another folder, or continue it with: "
                f"{self.command('resume')}"
            )

    def write_config(self) -> None:
        """Write `config.json`."""
        write_json(self.path / "config.json", {"format": FORMAT, **self.config.model_dump()})

    def command(self, name: str, flags: str = "") -> str:
        """A command for this run, to be typed in a shell. It trusts the modules that the configuration names.

        Args:
            name: of the command.
            flags: more for it, as they are typed.

        Example:
            >>> Run(Path("runs/my first"), TrainConfig(task="mytasks:MyTask")).command("resume", "--updates 9")
            "modelnative resume 'runs/my first' --updates 9 --trust mytasks"
        """
        words = f"modelnative {name} {shlex.quote(str(self.path))} {flags}".rstrip()
        return f"{words}{trust_flags([vars(self.config)])}"

    def lock(self) -> Held:
        """Keep other processes from training in this folder, until the lock is released or this process dies.

        Raises:
            UserError: another process holds it.
        """
        return hold(self.path / "run.lock")

    @classmethod
    def open(cls, path: Path) -> Run:
        """Find a run.

        Raises:
            UserError: the folder is not a run's, holds several runs, or its configuration is damaged.
        """
        require_path("run", path)
        several = sorted((p.parent for p in path.glob("trials/*/config.json")), key=lambda p: (len(p.name), p.name))
        if several:
            first = ", ".join(map(str, several[:3])) + (", …" if len(several) > 3 else "")
            raise UserError(f"run: {str(path)!r} holds {len(several)} runs; name one of them: {first}")
        if not cls.exists(path):
            if (path / "run.lock").exists():
                raise UserError(
                    f"run: {str(path)!r} has no configuration: its training was killed before it began; begin it with: "
                    f"modelnative train --out {shlex.quote(str(path))}"
                )
            raise UserError(
                f"run: {str(path)!r} is not a run folder; expected one made by: modelnative train --out RUN"
            )
        values = read_json(path / "config.json")
        if not isinstance(values, dict) or values.get("format") not in FORMATS:
            raise UserError(f"{path / 'config.json'}: not a modelnative configuration (expected format {FORMAT!r})")
        fields = upgraded_config(values)
        require_trusted(path / "config.json", fields)
        return cls(path, with_fields(TrainConfig(), fields))

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether the folder is a run, which can be resumed."""
        return (path / "config.json").is_file()

    def task(self, *, unchanged: bool = False) -> AnyTask:
        """The task that it trains on. A task that was edited since the training began is named in a warning.

        Args:
            unchanged: refuse such a task.

        Raises:
            UserError: the task cannot be made, or has changed.
        """
        task = make_task(self.config.task, **self.config.options)
        if self.fingerprint_path.exists():
            found = differences(read_json(self.fingerprint_path), fingerprint(task))
            text = f"task: {self.config.task!r} has changed since {str(self.path)!r} was trained ({', '.join(found)})"
            if found and unchanged:
                raise UserError(f"{text}; undo that to resume, or start a new run")
            if found:
                warnings.warn(text, stacklevel=2)
        return task

    def require_unfinished(self) -> None:
        """Raise a `UserError` if the run has its verdict."""
        if self.result_path.exists():
            raise UserError(
                f"run: {str(self.path)!r} is finished; look at it with: {self.command('evaluate')}; or train on with: "
                f"{self.command('resume', '--updates N')}"
            )

    def result(self) -> Result:
        """The verdict.

        Raises:
            UserError: the file is missing or damaged.
        """
        return Result.read(self.result_path, self.command("resume"))

    # Metrics

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of every update so far.

        Raises:
            UserError: the file is damaged.
        """
        lines = read_lines(self.metrics_path)
        for number, line in enumerate(lines, 1):
            if not isinstance(line, dict) or not isinstance(line.get("update"), int):
                raise UserError(f"{self.metrics_path}: line {number} is not the metrics of an update; delete it")
        return lines

    def append(self, lines: list[dict[str, Any]]) -> None:
        """Add updates to the metrics."""
        append_lines(self.metrics_path, lines)

    def alarms(self) -> list[dict[str, Any]]:
        """What audits found wrong so far, in order."""
        for number, line in enumerate(lines := read_lines(self.alarms_path), 1):
            if not (isinstance(line, dict) and {"update", "check", "text"} <= line.keys()):
                raise UserError(f"{self.alarms_path}: line {number} is not an alarm; delete it")
        return lines

    def first_alarms(self) -> list[dict[str, Any]]:
        """The first alarm of each check."""
        return list({line["check"]: line for line in reversed(self.alarms())}.values())[::-1]

    def forget_after(self, update: int) -> None:
        """Drop the metrics and alarms of updates that no checkpoint has; a continuation writes them anew."""
        lines = {line["update"]: line for line in self.metrics() if line["update"] <= update}
        write_lines(self.metrics_path, lines.values())
        if self.alarms_path.exists():
            write_lines(self.alarms_path, [line for line in self.alarms() if line["update"] <= update])

    # Checkpoints

    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        found = (self.path / "checkpoints").glob("*.safetensors")
        return sorted((p for p in found if re.fullmatch(r"\d+\.safetensors", p.name)), key=lambda p: int(p.stem))

    def save(self, trainer: Trainer, progress: dict[str, Any]) -> Path:
        """Write a checkpoint, then remove the oldest. The metrics up to it are on the disk before."""
        if self.metrics_path.exists():
            flush(self.metrics_path)
        tensors, counters = state_of(trainer)
        path = self.path / "checkpoints" / f"{trainer.updates:06d}.safetensors"
        write_tensors(path, tensors, {**self._about("checkpoint"), "counters": counters, "progress": progress})
        if not self.fingerprint_path.exists():
            write_json(self.fingerprint_path, fingerprint(trainer.task))
        for old in self.checkpoints()[: -self.config.keep_checkpoints]:
            old.unlink(missing_ok=True)
        return path

    def restore(self, trainer: Trainer) -> dict[str, Any]:
        """Put the newest checkpoint into `trainer`; returns the `progress` that was saved with it.

        Raises:
            UserError: there is none, it is damaged, or of another task or network.
        """
        path, tensors, about = self._newest()
        try:
            restore(trainer, tensors, about["counters"])
            progress: dict[str, Any] = about["progress"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: its tensors are not those of this run's network: {_first_line(error)}; {PASS_AGAIN}"
            ) from error
        return progress

    def _newest(self, update: int | None = None) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
        """The newest checkpoint, or that of an update: its path, its tensors, and what it says about them."""
        paths = [path for path in self.checkpoints() if update in (None, int(path.stem))]
        if not paths:
            raise UserError(f"run: {str(self.path)!r} has no checkpoint; start again with: modelnative train --out NEW")
        try:
            tensors, about = read_tensors(paths[-1])
        except UserError as error:
            older = f"; delete it to continue from {paths[-2].name}" if len(paths) > 1 else ""
            raise UserError(f"{error}{older}") from error
        self._check(paths[-1], about, "checkpoint")
        return paths[-1], tensors, about

    # Weights

    def save_weights(self, policy: nn.Module) -> None:
        """Write the policy."""
        write_tensors(self.weights_path, dict(policy.state_dict()), self._about("weights"))

    def weights(self) -> dict[str, Tensor]:
        """The best verified weights.

        Raises:
            UserError: the file is missing, damaged, or of another task or network.
        """
        tensors, about = read_tensors(self.weights_path)
        self._check(self.weights_path, about, "weights")
        return tensors

    def policy(self, task: AnyTask, policy: nn.Module | None = None, checkpoint: int | None = None) -> Policy:
        """The best verified policy; the newest checkpoint's where there is none yet.

        Args:
            task: of the run.
            policy: the module to load the weights into; by default made by the run's configuration.
            checkpoint: take the weights of the checkpoint at this update instead.

        Raises:
            UserError: no file is there, it is damaged, or of another task or network.
        """
        if policy is None:
            policy = make_policy(task.spec, self.config.core, self.config.policy)
        self.load_into(policy, checkpoint)
        return cast(Policy, policy.eval())

    def load_into(self, policy: nn.Module, checkpoint: int | None = None) -> None:
        """Give a policy the best verified weights; the newest checkpoint's where there are none yet; or a checkpoint's.

        Raises:
            UserError: no file is there, it is damaged, or of another task or network.
        """
        if checkpoint is None and self.weights_path.exists():
            path, tensors = self.weights_path, self.weights()
        else:
            path, tensors, _ = self._newest(checkpoint)
            tensors = {name.removeprefix("policy."): v for name, v in tensors.items() if name.startswith("policy.")}
        try:
            policy.load_state_dict(tensors)
        except RuntimeError as error:
            raise UserError(
                f"{path}: not the weights of {type(policy).__name__}: {_first_line(error)}; {PASS_AGAIN}"
            ) from error

    def _about(self, kind: str) -> dict[str, Any]:
        config = self.config.model_dump()
        return {
            "kind": kind,
            "torch": torch.__version__,
            **{k: config[k] for k in ("task", "options", "core", "policy")},
        }

    def _check(self, path: Path, about: dict[str, Any], kind: str) -> None:
        """Raise a `UserError` unless the file is of this kind, task and network."""
        for name, expected in self._about(kind).items():
            found = about.get(name)
            if name == "policy" and isinstance(found, dict):
                found = {**PolicyConfig().model_dump(), **found}  # a field that there was not yet
            if name != "torch" and found != expected:
                raise UserError(f"{path}: its {name} is {found!r}, but this run's is {expected!r}")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def new_folder(config: TrainConfig, ending: str = "") -> Path:
    """The path of a new folder for a training or several, named by the time and by what is trained."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{config.task}-{config.core}-{config.algorithm}-{ending or config.seed}"
    path = Path("runs") / name.replace(":", ".").replace("/", ".")
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not free.exists())
