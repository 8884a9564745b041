"""The run folder.

RUN/config.json             every field of the training
RUN/task.json               what identifies the task, so that a later edit is noticed
RUN/metrics.jsonl           a line an update; all but its `timing` is reproducible
RUN/checkpoints/000050.safetensors   weights, optimizer, curriculum, counters; the newest three
RUN/weights.safetensors     the best verified policy
RUN/result.json             the verdict on it, and what the training cost
RUN/report.html             learning curves and results, for people
"""

from __future__ import annotations

import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelnative.errors import UserError
from modelnative.policies.config import PolicyConfig
from modelnative.policies.contract import Policy
from modelnative.policies.registry import make_policy
from modelnative.runs.files import (
    FORMAT,
    append_lines,
    read_json,
    read_lines,
    read_tensors,
    write,
    write_json,
    write_tensors,
)
from modelnative.runs.upgrade import FORMATS, upgraded_config
from modelnative.tasks import make_task
from modelnative.tasks.contract.fingerprint import differences, fingerprint
from modelnative.tasks.contract.task import AnyTask
from modelnative.tasks.importing import require_trusted
from modelnative.training.checkpoint import restore, state_of
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.trainer import Trainer

KEPT = 3  # checkpoints
PASS_AGAIN = "a policy or curriculum that was passed as an object must be passed again: policy=..., curriculum=..."


@dataclass(frozen=True)
class Run:
    """A folder, and the configuration in it."""

    path: Path
    config: TrainConfig

    @classmethod
    def create(cls, path: Path, config: TrainConfig) -> Run:
        """Make the folder and write the configuration.

        Raises:
            UserError: something is there already, or the place cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(
                f"out: {str(path)!r} exists already; choose another folder, "
                f"or continue it with: modelnative resume {path}"
            )
        run = cls(path, config)
        try:
            write_json(path / "config.json", {"format": FORMAT, **config.model_dump()})
        except UserError:
            run.remove()
            raise
        return run

    def remove(self) -> None:
        """Take back what `create` and a first checkpoint may have written, as far as that goes."""
        shutil.rmtree(self.path, ignore_errors=True)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Find a run.

        Raises:
            UserError: the folder is not a run's, or its configuration is damaged.
        """
        if not (path / "config.json").is_file():
            raise UserError(
                f"run: {str(path)!r} is not a run folder; expected one made by: modelnative train --out RUN"
            )
        values = read_json(path / "config.json")
        if not isinstance(values, dict) or values.get("format") not in FORMATS:
            raise UserError(f"{path / 'config.json'}: not a modelnative configuration (expected format {FORMAT!r})")
        fields = upgraded_config(values)
        require_trusted(path / "config.json", fields)
        return cls(path, with_fields(TrainConfig(), fields))

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

    @property
    def fingerprint_path(self) -> Path:
        """What identifies the task; see `modelnative.tasks.contract.fingerprint`."""
        return self.path / "task.json"

    @property
    def result_path(self) -> Path:
        """Where the verdict is, once training is finished."""
        return self.path / "result.json"

    # Metrics

    @property
    def metrics_path(self) -> Path:
        """Where the metrics are."""
        return self.path / "metrics.jsonl"

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of every update so far."""
        return read_lines(self.metrics_path)

    def append(self, lines: list[dict[str, Any]]) -> None:
        """Add updates to the metrics."""
        append_lines(self.metrics_path, lines)

    def forget_after(self, update: int) -> None:
        """Drop the metrics of updates that no checkpoint has, so that a continuation writes them anew."""
        lines = self.metrics_path.read_bytes().splitlines(keepends=True) if self.metrics_path.exists() else []
        write(self.metrics_path, b"".join(lines[:update]))

    # Checkpoints

    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        found = (self.path / "checkpoints").glob("*.safetensors")
        return sorted((p for p in found if re.fullmatch(r"\d+\.safetensors", p.name)), key=lambda p: int(p.stem))

    def save(self, trainer: Trainer, progress: dict[str, Any]) -> Path:
        """Write a checkpoint, then remove the oldest."""
        tensors, counters = state_of(trainer)
        path = self.path / "checkpoints" / f"{trainer.updates:06d}.safetensors"
        write_tensors(path, tensors, {**self._about("checkpoint"), "counters": counters, "progress": progress})
        if not self.fingerprint_path.exists():
            write_json(self.fingerprint_path, fingerprint(trainer.task))
        for old in self.checkpoints()[:-KEPT]:
            old.unlink(missing_ok=True)
        return path

    def restore(self, trainer: Trainer) -> dict[str, Any]:
        """Put the newest checkpoint into `trainer`; returns the `progress` that was saved with it.

        Raises:
            UserError: there is none, it is damaged, or of another task or network.
        """
        paths = self.checkpoints()
        if not paths:
            raise UserError(f"run: {str(self.path)!r} has no checkpoint; start again with: modelnative train --out NEW")
        try:
            tensors, about = read_tensors(paths[-1])
        except UserError as error:
            older = f"; delete it to continue from {paths[-2].name}" if len(paths) > 1 else ""
            raise UserError(f"{error}{older}") from error
        self._check(paths[-1], about, "checkpoint")
        try:
            restore(trainer, tensors, about["counters"])
        except (KeyError, RuntimeError) as error:
            raise UserError(
                f"{paths[-1]}: its tensors are not those of this run's network: {_first_line(error)}; {PASS_AGAIN}"
            ) from error
        progress: dict[str, Any] = about["progress"]
        return progress

    # Weights

    @property
    def weights_path(self) -> Path:
        """Where the best verified weights are."""
        return self.path / "weights.safetensors"

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

    def policy(self, task: AnyTask, policy: nn.Module | None = None) -> Policy:
        """The best verified policy; the newest checkpoint's where there is none yet.

        Args:
            task: of the run.
            policy: the module to load the weights into; by default made by the run's configuration.

        Raises:
            UserError: no file is there, it is damaged, or of another task or network.
        """
        if not self.weights_path.exists():
            trainer = Trainer(task, with_fields(self.config, {"device": "cpu"}), policy)
            self.restore(trainer)
            return trainer.policy.eval()
        if policy is None:
            policy = make_policy(task.spec, self.config.core, self.config.policy)
        try:
            policy.load_state_dict(self.weights())
        except RuntimeError as error:
            raise UserError(
                f"{self.weights_path}: not the weights of {type(policy).__name__}: {_first_line(error)}; {PASS_AGAIN}"
            ) from error
        return cast(Policy, policy.eval())

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
