"""Loggers: callbacks that send the metrics of a training to TensorBoard, Weights & Biases, Trackio or MLflow.

All of them get the same names (see `scalars`), so that curves can be compared wherever they are. Each needs a package,
which the extra of the logger's name installs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelnative.evidence.evaluate import Evaluation
from modelnative.extras import optional
from modelnative.runs.events import Checkpointed, Finished, Verified
from modelnative.runs.files import read_json, write_json
from modelnative.runs.run import Run
from modelnative.training.events import Callback, Started, Updated

PROJECT = "modelnative"


def scalars(metrics: Mapping[str, Any], stages: Sequence[str]) -> dict[str, float]:
    """The numbers of an update by name; one that does not exist (None) is left out.

    Args:
        metrics: of the update, as a line of `metrics.jsonl` has them.
        stages: the names of the task's stages.

    Returns:
        Names such as `entropy`, `success/T2`, `greedy/T0` and `timing/seconds`.
    """
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if name == "stages":
            continue
        parts = dict(zip(stages, value, strict=True)) if isinstance(value, (list, tuple)) else value
        named = (
            {f"{name}/{part}": number for part, number in parts.items()} if isinstance(parts, dict) else {name: value}
        )
        numbers.update({part: float(number) for part, number in named.items() if number is not None})
    return numbers


class Logger(Callback):
    """What the loggers have in common. A logger overrides `open`, `send` and `close`.

    Numbers are sent at checkpoints. A training that is killed continues at its newest checkpoint and does the updates
    after it again, so that each of them is sent once. `RUN/loggers.json` says what was sent; what is missing there is
    sent from the run's own metrics.

    Attributes:
        module_name: of the module that the logger imports, whose last part is the name of its package.
        tested: versions of the package: from the first, and below the second.
        at_once: whether what was sent survives a kill; otherwise that holds only after `close`.
    """

    module_name = ""
    tested = ("", "")
    at_once = True

    def __init__(self) -> None:
        package = self.module_name.rpartition(".")[2]
        self.module: Any = optional(self.module_name, self.name, *self.tested, package=package)
        self.stages: tuple[str, ...] = ()
        self.pending: dict[int, dict[str, float]] = {}
        self.sent = 0
        self.run: Run | None = None
        self.is_open = False

    @property
    def name(self) -> str:
        """As the configuration calls it."""
        return type(self).__name__.lower()

    def create(self, run: Run) -> str:
        """What the logger will know this run by; called once for each run."""
        return run.path.resolve().name

    def open(self, run: Run, identity: str, sent: int) -> None:
        """Begin, or continue after what was sent."""
        raise NotImplementedError

    def send(self, numbers: dict[int, dict[str, float]]) -> None:
        """Keep the numbers of these updates, in their order."""
        raise NotImplementedError

    def close(self) -> None:
        """End, however the training ends."""

    def on_start(self, event: Started) -> None:
        self.stages, self.run = event.stages, event.run
        known = self._known.get(self.name) or {"id": self.create(event.run), "sent": 0}
        self._remember(known)
        self.sent = known["sent"]
        self.open(event.run, known["id"], known["sent"])
        self.is_open = True
        for line in event.run.metrics():
            if line["update"] > known["sent"]:
                self.pending[line["update"]] = scalars(line, self.stages)
        self.deliver()

    def on_update(self, event: Updated) -> None:
        self._add(event.metrics.update, scalars(dataclasses.asdict(event.metrics), self.stages))

    def on_verify(self, event: Verified) -> None:
        self._add(event.update, self._rates("verified", event.evaluation))

    def on_checkpoint(self, event: Checkpointed) -> None:
        self.deliver()

    def on_finish(self, event: Finished) -> None:
        self._add(event.updates, self._rates("final", event.evaluation))
        self.deliver()

    def deliver(self) -> None:
        """Send what is pending, and remember that it was sent."""
        if self.pending:
            self.send(self.pending)
            self.sent = max(self.pending)
            self.pending = {}
            if self.at_once:
                self._remember({**self._known[self.name], "sent": self.sent})

    def end(self) -> None:
        """Close it if it is open."""
        if self.is_open:
            self.is_open = False
            self.close()
            self._remember({**self._known[self.name], "sent": self.sent})

    def _add(self, update: int, numbers: dict[str, float]) -> None:
        self.pending.setdefault(update, {}).update(numbers)

    def _rates(self, name: str, evaluation: Evaluation) -> dict[str, float]:
        rates = {f"{name}/{stage}": evaluation.total(stage).rate for stage in self.stages}
        return {stage: rate for stage, rate in rates.items() if rate is not None}

    @property
    def _path(self) -> Path:
        assert self.run is not None
        return self.run.path / "loggers.json"

    @property
    def _known(self) -> dict[str, Any]:
        """What each logger calls this run, and the last update that it was sent."""
        return read_json(self._path) if self._path.exists() else {}

    def _remember(self, known: dict[str, Any]) -> None:
        write_json(self._path, {**self._known, self.name: known})


class TensorBoard(Logger):
    """Writes event files into `RUN/tensorboard`."""

    module_name, tested = "torch.utils.tensorboard", ("2.17", "3")

    def open(self, run: Run, identity: str, sent: int) -> None:
        self.writer = self.module.SummaryWriter(str(run.path / "tensorboard"), purge_step=sent + 1 if sent else None)
        if not sent:
            self.writer.add_text("config", f"```json\n{run.config.model_dump_json(indent=2)}\n```", 0)

    def send(self, numbers: dict[int, dict[str, float]]) -> None:
        for update, values in numbers.items():
            for name, value in values.items():
                self.writer.add_scalar(name, value, update)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Wandb(Logger):
    """Logs to Weights & Biases as its own settings say (`WANDB_MODE`, `WANDB_PROJECT`...); files are in `RUN/wandb`."""

    module_name, tested = "wandb", ("0.18", "1")
    at_once = False  # its own process writes later, and a kill ends it, too

    def create(self, run: Run) -> str:
        return secrets.token_hex(4)

    def open(self, run: Run, identity: str, sent: int) -> None:
        self.logged = self.module.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=identity,
            name=run.path.resolve().name,
            dir=str(run.path),
            config=run.config.model_dump(),
            resume="allow",
        )
        self.first = self.logged.step  # a server has those before

    def send(self, numbers: dict[int, dict[str, float]]) -> None:
        for update, values in numbers.items():
            if update >= self.first:
                self.logged.log(values, step=max(update, self.logged.step), commit=True)  # a step cannot be added to

    def close(self) -> None:
        self.logged.finish()


class Trackio(Logger):
    """Logs to Trackio's local database; `trackio show` displays it."""

    module_name, tested = "trackio", ("0.20", "1")

    def open(self, run: Run, identity: str, sent: int) -> None:
        config = run.config.model_dump(mode="json")
        self.begin = {"project": PROJECT, "name": identity, "config": config, "resume": "allow"}

    def send(self, numbers: dict[int, dict[str, float]]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it says each time that it begins and ends
            self.module.init(**self.begin)
            for update, values in numbers.items():
                self.module.log(values, step=update)
            self.module.finish()  # the one way to know that everything is written


class MLflow(Logger):
    """Logs to the MLflow server or folder that `MLFLOW_TRACKING_URI` names, in the experiment `modelnative`."""

    module_name, tested = "mlflow", ("2.16", "4")

    def create(self, run: Run) -> str:
        client = self.module.MlflowClient()
        found = client.get_experiment_by_name(PROJECT)
        experiment = client.create_experiment(PROJECT) if found is None else found.experiment_id
        made = client.create_run(experiment, run_name=run.path.resolve().name)
        for name, value in run.config.model_dump().items():
            client.log_param(made.info.run_id, name, value)
        return str(made.info.run_id)

    def open(self, run: Run, identity: str, sent: int) -> None:
        self.client, self.identity = self.module.MlflowClient(), identity
        self.client.update_run(identity, status="RUNNING")

    def send(self, numbers: dict[int, dict[str, float]]) -> None:
        now, metric = int(time.time() * 1000), self.module.entities.Metric
        for update, values in numbers.items():
            self.client.log_batch(self.identity, [metric(name, value, now, update) for name, value in values.items()])

    def close(self) -> None:
        self.client.set_terminated(self.identity)


def make_loggers(names: str) -> list[Logger]:
    """The loggers that the configuration's `log` names.

    Raises:
        UserError: a package is not installed.
    """
    kinds = {kind.__name__.lower(): kind for kind in (TensorBoard, Wandb, Trackio, MLflow)}
    return [kinds[name]() for name in names.split(",") if name]
