"""The run folder as a callback: it writes what a training reports."""

from __future__ import annotations

import dataclasses

from modelnative.runs.events import Checkpointed, Finished, Verified
from modelnative.runs.files import append_lines, write_json
from modelnative.runs.result import COSTS
from modelnative.runs.run import Run
from modelnative.speed.machine import machine
from modelnative.training.events import Alarmed, Callback, Updated


class RunFolder(Callback):
    """Writes metrics, checkpoints, the best weights and the result into a run folder.

    Args:
        run: a folder that has its configuration and a first checkpoint.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_update(self, event: Updated) -> None:
        self.run.append([dataclasses.asdict(event.metrics)])

    def on_alarm(self, event: Alarmed) -> None:
        line = {"update": event.update, **dataclasses.asdict(event.alarm), "text": event.alarm.text}
        append_lines(self.run.alarms_path, [line])

    def on_verify(self, event: Verified) -> None:
        if event.best and event.trainer is not None:
            self.run.save_weights(event.trainer.policy)

    def on_checkpoint(self, event: Checkpointed) -> None:
        if event.trainer is not None:
            self.run.save(event.trainer, event.progress)

    def on_finish(self, event: Finished) -> None:
        verdicts = {"evaluation": event.evaluation.as_dict(), "sampled": event.sampled.as_dict()}
        costs = {name: getattr(event, name) for name in COSTS}
        threads = {} if event.trainer is None else {"threads": event.trainer.pool.threads}
        summary = {} if event.trainer is None else event.trainer.curriculum.summary(event.trainer.task)
        curriculum = {"curriculum": summary} if summary else {}
        write_json(self.run.result_path, {**verdicts, **costs, **curriculum, "machine": {**machine(), **threads}})
