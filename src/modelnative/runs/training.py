"""From a configuration to a verified policy: train, verify, keep, until all is solved or the budget is spent."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from modelnative.bench.machine import machine
from modelnative.errors import UserError
from modelnative.evidence.evaluate import Evaluation, evaluate
from modelnative.runs.files import read_tensors, write_json
from modelnative.runs.run import Run
from modelnative.tasks import make_task
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import Problems
from modelnative.training.config import TrainConfig, validate
from modelnative.training.parallel import own_device
from modelnative.training.rollout import Rollout
from modelnative.training.trainer import Metrics, Trainer

REST = 8  # updates between two verifications, which cost as much as a dozen of them
LONG_REST = 40  # the same where sampled success is not yet what is asked for
LIKELY = 0.01  # smoothed failure of the worst stage from which sampled success is measured, in a REST
NEARLY = 0.05  # smoothed failure of the worst stage from which on verification shows what to practise
SAMPLED = 8192  # episodes of each stage that measure sampled success
PRACTICE = 4096  # the most problems to practise at a time


@dataclass(frozen=True)
class Started:
    """The first event.

    Attributes:
        run: the folder.
        update: updates that an earlier part of the training has done.
        stages: the names of the task's stages.
        parameters: numbers in the network.
    """

    run: Run
    update: int
    stages: tuple[str, ...]
    parameters: int


@dataclass(frozen=True)
class Updated:
    """An update is done; `elapsed` is the training's seconds so far, verification included."""

    metrics: Metrics
    elapsed: float


@dataclass(frozen=True)
class Verified:
    """Every problem of the training split was played greedily."""

    update: int
    evaluation: Evaluation
    elapsed: float


@dataclass(frozen=True)
class Finished:
    """The end; the best verified weights are written.

    Attributes:
        run: the folder.
        evaluation: of the best weights, every problem, train and held-out apart, greedily.
        sampled: the same, with actions drawn at temperature 1.
        updates, episodes, steps, seconds: what the training cost; seconds without the final evaluation.
    """

    run: Run
    evaluation: Evaluation
    sampled: Evaluation
    updates: int
    episodes: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Interrupted:
    """A signal asked to stop; everything up to `update` is in the checkpoint."""

    run: Run
    update: int
    signal: int


Event = Started | Updated | Verified | Finished | Interrupted


@dataclass
class Progress:
    """What the driver itself must remember across a continuation.

    Attributes:
        elapsed: seconds of training.
        verified: the update of the last verification.
        sampled: the update of the last measurement of sampled success; confident: it was as asked for.
        best: successes of the best verified weights.
        solved: the newest verification found no failure, so that nothing is left to learn.
    """

    elapsed: float = 0.0
    verified: int = -REST
    sampled: int = -REST
    confident: bool = False
    best: int = -1
    solved: bool = False


@dataclass
class Training:
    """A run under way: iterate over `events()`.

    With `torchrun` every process makes one and has the same events; rank 0 alone verifies and writes.

    Example:
        >>> training = Training.start(Path("run"), recipe())  # doctest: +SKIP
        >>> for event in training.events():  # doctest: +SKIP
        ...     print(event)
    """

    run: Run
    trainer: Trainer
    progress: Progress = field(default_factory=Progress)

    @classmethod
    def start(cls, path: Path, config: TrainConfig) -> Training:
        """A new run folder, with a first checkpoint.

        Raises:
            UserError: a field is not sensible, or the folder cannot be made.
        """
        validate(config)
        require_device(own_device(config.device))
        torch.set_num_threads(1)
        trainer = Trainer(make_task(config.task, **config.options), config)
        if not trainer.group.leads:
            return cls(Run(path, config), trainer)._alike()
        run = Run.create(path, config)
        try:
            run.save(trainer, dataclasses.asdict(Progress()))
        except UserError:
            run.remove()  # a folder without a checkpoint can be neither resumed nor started again
            raise
        return cls(run, trainer)._alike()

    @classmethod
    def resume(cls, path: Path) -> Training:
        """The run in `path`, at its newest checkpoint.

        Raises:
            UserError: it is not a run, is finished, or its checkpoint is damaged or of another task.
        """
        run = Run.open(path)
        if run.result_path.exists():
            raise UserError(f"run: {str(path)!r} is finished; look at it with: modelnative evaluate {path}")
        require_device(own_device(run.config.device))
        torch.set_num_threads(1)
        trainer = Trainer(run.task(), run.config)
        progress = Progress(**run.restore(trainer))
        if trainer.group.leads:
            run.forget_after(trainer.updates)
        return cls(run, trainer, progress)._alike()

    def _alike(self) -> Training:
        """Itself, once all processes are known to do the same work, in the folder that rank 0 has.

        Raises:
            UserError: a process was started with other fields, or sees another checkpoint.
        """
        config = dataclasses.asdict(self.run.config)
        mine = [str(self.run.path), config, self.trainer.updates]
        path, first, updates = json.loads(self.trainer.group.say(json.dumps(mine)))
        for name, value in json.loads(json.dumps(config)).items():
            if value != first[name]:
                raise UserError(
                    f"{name}: {value!r} is not what rank 0 has, {first[name]!r}; start all with one command"
                )
        if updates != self.trainer.updates:
            raise UserError(
                f"run: the newest checkpoint seen here is {self.trainer.updates}, and by rank 0 {updates}; "
                "the run must be on a file system that all machines share"
            )
        return dataclasses.replace(self, run=dataclasses.replace(self.run, path=Path(path)))

    def events(self) -> Iterator[Event]:
        """Train to the end; every step is told as it is done.

        Ctrl-C and SIGTERM end it after the current update, with a checkpoint; a second Ctrl-C ends it at once.

        Raises:
            UserError: the disk is full, a process is gone, or the numbers are no longer finite; the newest checkpoint
                stands.
        """
        trainer, progress, group = self.trainer, self.progress, self.trainer.group
        parameters = sum(p.numel() for p in trainer.policy.parameters())
        yield Started(self.run, trainer.updates, trainer.task.spec.stages, parameters)
        with signals() as received:
            while self.goes_on:
                start = time.perf_counter()
                metrics = trainer.update()
                yield from self.advance(metrics, start)
                stop = group.most(received[0] if received else 0)  # whoever of the processes heard the signal
                if stop and not progress.solved:
                    self.save()
                    group.close()
                    yield Interrupted(self.run, trainer.updates, stop)
                    return
            yield from self.finish()

    @property
    def goes_on(self) -> bool:
        """Neither solved nor at the end of its budget."""
        config, progress = self.run.config, self.progress
        late = config.minutes and progress.elapsed >= config.minutes * 60
        return self.trainer.updates < config.updates and not progress.solved and not late

    def advance(self, metrics: Metrics, start: float) -> Iterator[Event]:
        """What follows an update that began at `start`: write it down, verify, keep a checkpoint."""
        self._require_finite(metrics)
        if self.trainer.group.leads:
            self.run.append([dataclasses.asdict(metrics)])
        self._count(start)
        yield Updated(metrics, self.progress.elapsed)
        if self._due(metrics):
            yield self._verify()
        if metrics.update % self.run.config.checkpoint_every == 0:
            self.save()

    def finish(self) -> Iterator[Event]:
        """What follows the last update: verify, keep, judge."""
        if self.progress.verified != self.trainer.updates:
            yield self._verify()
        self.save()
        finished = self._finish()
        self.trainer.group.close()
        yield finished

    def save(self) -> None:
        """Write a checkpoint."""
        if self.trainer.group.leads:
            self.run.save(self.trainer, dataclasses.asdict(self.progress))

    def _due(self, metrics: Metrics) -> bool:
        """Whether to verify, for what it costs: once sampled success is as asked for, or to find what to practise."""
        progress, failure = self.progress, self.trainer.curriculum.failure
        progress.confident = False
        if failure <= LIKELY and metrics.update - max(progress.verified, progress.sampled) >= REST:
            start = time.perf_counter()
            progress.sampled = metrics.update
            progress.confident = min(self.trainer.success(SAMPLED, sampled=True)) >= self.run.config.target_success
            self._count(start)
            if progress.confident and self.trainer.mastered():
                return True
        return failure <= NEARLY and metrics.update - progress.verified >= LONG_REST

    def _verify(self) -> Verified:
        """Play the whole training split greedily."""
        start = time.perf_counter()
        trainer, progress, group = self.trainer, self.progress, self.trainer.group
        wrong: list[Problems] = [trainer.draw()[1][:0]]

        def collect(rollout: Rollout) -> None:
            if not bool(rollout.success.all()):
                wrong.append(rollout.problems[~rollout.success])

        which: dict[str, Any] = {"stages": trainer.stages, "split": self.run.config.split}
        evaluation = self._verdict(lambda: evaluate(trainer.policy, trainer.task, **which, on_rollout=collect))
        if evaluation.total().successes >= progress.best:
            progress.best = evaluation.total().successes
            if group.leads:
                self.run.save_weights(trainer.policy)
        practice = Batch.cat(wrong)[:: 1 + sum(map(len, wrong)) // PRACTICE].map(group.copy)
        trainer.practice = practice if len(practice) else None
        progress.verified = trainer.updates
        progress.solved = progress.confident and evaluation.reaches(self.run.config.target_success)
        self._count(start)
        return Verified(trainer.updates, evaluation, progress.elapsed)

    def _finish(self) -> Finished:
        trainer, config, leads = self.trainer, self.run.config, self.trainer.group.leads
        if leads:
            trainer.policy.load_state_dict(read_tensors(self.run.weights_path)[0])
        generator = torch.Generator(config.device).manual_seed(config.seed)
        finished = Finished(
            run=self.run,
            evaluation=self._verdict(lambda: evaluate(trainer.policy, trainer.task)),
            sampled=self._verdict(lambda: evaluate(trainer.policy, trainer.task, generator=generator)),
            updates=trainer.updates,
            episodes=trainer.episodes,
            steps=trainer.steps,
            seconds=self.progress.elapsed,
        )
        result = {name: getattr(finished, name) for name in ("updates", "episodes", "steps", "seconds")}
        verdicts = {"evaluation": finished.evaluation.as_dict(), "sampled": finished.sampled.as_dict()}
        if leads:
            write_json(self.run.result_path, {**verdicts, **result, "machine": machine()})
        return finished

    def _verdict(self, play: Callable[[], Evaluation]) -> Evaluation:
        """What rank 0 finds, on every process."""
        group = self.trainer.group
        if group.size == 1:
            return play()
        return Evaluation.of(json.loads(group.say(json.dumps(play().as_dict()) if group.leads else "")))

    def _count(self, start: float) -> None:
        """Count the seconds since `start`, by rank 0's clock: who looks at the budget must not disagree on it."""
        spent = time.perf_counter() - start
        self.progress.elapsed = self.trainer.group.tell([self.progress.elapsed + spent])[0]

    def _require_finite(self, metrics: Metrics) -> None:
        if not all(map(math.isfinite, (metrics.policy_loss, metrics.value_loss, metrics.gradient_norm))):
            raise UserError(
                f"optimizer.learning_rate: {self.run.config.optimizer.learning_rate!r} made the numbers overflow at "
                f"update {metrics.update}; start again with a smaller one"
            )


def require_device(name: str) -> None:
    """Raise a `UserError` unless torch can compute there."""
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises whichever
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device: {name!r} is not available here ({reason}); expected cpu") from error


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; the second SIGINT raises KeyboardInterrupt."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is note:
                signal.signal(number, handler)
