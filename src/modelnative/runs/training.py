"""From a configuration to a verified policy: train, verify, keep, until all is solved or the budget is spent."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelnative.errors import UserError
from modelnative.evidence.evaluate import Evaluation, evaluate
from modelnative.runs.events import Checkpointed, Finished, Interrupted, Verified
from modelnative.runs.folder import RunFolder
from modelnative.runs.run import Run
from modelnative.runs.signals import collect_signals
from modelnative.tasks import make_task
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.config import TrainConfig
from modelnative.training.curriculum import Curriculum
from modelnative.training.events import CallbackLike, Event, Started, Updated
from modelnative.training.metrics import Metrics, stage_success
from modelnative.training.parallel import own_device
from modelnative.training.rollout import Rollout, play
from modelnative.training.trainer import Trainer

VERIFY_EVERY = 8  # updates between two verifications, which cost as much as a dozen of them
VERIFY_FAILING_EVERY = 40  # the same where sampled success is not yet what is asked for
MEASURE_BELOW = 0.01  # smoothed failure of the worst stage below which sampled success is measured
PRACTICE_BELOW = 0.05  # smoothed failure of the worst stage below which a verification shows what to practice
SAMPLED_EPISODES = 8192  # of each stage, to measure sampled success
MAX_PRACTICE = 4096  # problems to practice at a time


@dataclass
class LoopState:
    """What the training loop itself must remember across a continuation.

    Attributes:
        elapsed: seconds of training.
        verified: the update of the last verification.
        sampled: the update of the last measurement of sampled success.
        confident: the last measured sampled success was at least `target_success`.
        best: successes of the best verified weights.
        solved: the newest verification found no failure, so that nothing is left to learn.
    """

    elapsed: float = 0.0
    verified: int = -VERIFY_EVERY
    sampled: int = -VERIFY_EVERY
    confident: bool = False
    best: int = -1
    solved: bool = False


@dataclass
class Training:
    """A verified training in a run folder: iterate over `events()`. The trainer's callbacks get the same events.

    With `torchrun` every process makes one and has the same events; rank 0 alone verifies and writes.

    Example:
        >>> training = Training.start(Path("run"), recipe())  # doctest: +SKIP
        >>> for event in training.events():  # doctest: +SKIP
        ...     print(event)
    """

    run: Run
    trainer: Trainer
    state: LoopState = field(default_factory=LoopState)
    best_weights: dict[str, Tensor] | None = None

    @classmethod
    def start(
        cls,
        path: Path,
        config: TrainConfig,
        *,
        task: AnyTask | None = None,
        policy: nn.Module | None = None,
        curriculum: Curriculum | None = None,
        callbacks: Sequence[CallbackLike] = (),
    ) -> Training:
        """A new run folder, with a first checkpoint; the other arguments are those of `Trainer`.

        Raises:
            UserError: a field is not allowed, or the folder cannot be made.
        """
        require_device(own_device(config.device))
        task = make_task(config.task, **config.options) if task is None else task
        trainer = Trainer(task, config, policy, curriculum, callbacks)
        run = Run(path, config)
        training = cls(run, trainer)
        if trainer.group.is_leader:
            run = Run.create(path, config)
            trainer.callbacks.insert(0, RunFolder(run))
            try:
                run.save(trainer, dataclasses.asdict(training.state))
            except UserError:
                run.remove()  # a folder without a checkpoint can be neither resumed nor started again
                raise
        return training._agreed()

    @classmethod
    def resume(
        cls,
        path: Path,
        *,
        policy: nn.Module | None = None,
        curriculum: Curriculum | None = None,
        callbacks: Sequence[CallbackLike] = (),
    ) -> Training:
        """The run in `path`, at its newest checkpoint.

        Raises:
            UserError: it is not a run, is finished, or its checkpoint is damaged or of another task.
        """
        run = Run.open(path)
        if run.result_path.exists():
            raise UserError(f"run: {str(path)!r} is finished; look at it with: modelnative evaluate {path}")
        require_device(own_device(run.config.device))
        trainer = Trainer(run.task(unchanged=True), run.config, policy, curriculum, callbacks)
        state = LoopState(**run.restore(trainer))
        if trainer.group.is_leader:
            run.forget_after(trainer.updates)
            trainer.callbacks.insert(0, RunFolder(run))
        best = run.weights() if run.weights_path.exists() else None
        return cls(run, trainer, state, best)._agreed()

    def _agreed(self) -> Training:
        """Itself, once all processes are known to do the same work, in the folder that rank 0 has.

        Raises:
            UserError: a process was started with other fields, or has another checkpoint.
        """
        config = json.loads(json.dumps(self.run.config.model_dump()))
        own = [str(self.run.path), config, self.trainer.updates]
        path, first, updates = json.loads(self.trainer.group.broadcast_text(json.dumps(own)))
        for name, value in config.items():
            if value != first[name]:
                raise UserError(
                    f"{name}: {value!r} is not what rank 0 has, {first[name]!r}; start all with one command"
                )
        if updates != self.trainer.updates:
            raise UserError(
                f"run: the newest checkpoint found here is {self.trainer.updates}, and by rank 0 {updates}; "
                "the run must be on a file system that all machines share"
            )
        return dataclasses.replace(self, run=dataclasses.replace(self.run, path=Path(path)))

    def events(self) -> Iterator[Event]:
        """Train to the end, and yield every event.

        Ctrl-C and SIGTERM end it after the current update, with a checkpoint; a second Ctrl-C ends it at once.

        Raises:
            UserError: the disk is full, a process is gone, or the numbers are no longer finite; the newest checkpoint
                stands.
        """
        trainer, group = self.trainer, self.trainer.group
        parameters = sum(parameter.numel() for parameter in trainer.parameters)
        yield self._emit(Started(self.run, trainer.updates, trainer.task.spec.stages, parameters, trainer=trainer))
        with collect_signals() as received:
            while self._continues:
                start = time.perf_counter()
                metrics = trainer.update()
                self._require_finite(metrics)
                self._count(start)
                yield self._emit(Updated(metrics, self.state.elapsed, trainer=trainer))
                if self._verification_due(metrics):
                    yield self._emit(self._verify())
                if metrics.update % self.run.config.checkpoint_every == 0:
                    yield self._emit(self._checkpoint())
                signal = group.max(received[0] if received else 0)  # whichever process received it
                if signal and not self.state.solved:
                    yield self._emit(self._checkpoint())
                    group.close()
                    yield self._emit(Interrupted(self.run, trainer.updates, signal, trainer=trainer))
                    return
            if self.state.verified != trainer.updates:
                yield self._emit(self._verify())
            yield self._emit(self._checkpoint())
            yield self._emit(self._finish())

    def _emit(self, event: Event) -> Event:
        self.trainer.emit(event)
        return event

    @property
    def _continues(self) -> bool:
        """Neither solved nor at the end of its budget."""
        config, state = self.run.config, self.state
        late = config.minutes and state.elapsed >= config.minutes * 60
        return self.trainer.updates < config.updates and not state.solved and not late

    def _checkpoint(self) -> Checkpointed:
        return Checkpointed(self.trainer.updates, dataclasses.asdict(self.state), trainer=self.trainer)

    def _verification_due(self, metrics: Metrics) -> bool:
        """Whether to verify, for what it costs: once sampled success is as asked for, or to find what to practice."""
        state, failure = self.state, self.trainer.curriculum.failure
        state.confident = False
        if failure <= MEASURE_BELOW and metrics.update - max(state.verified, state.sampled) >= VERIFY_EVERY:
            start = time.perf_counter()
            state.sampled = metrics.update
            sampled = stage_success(self.trainer, SAMPLED_EPISODES, sampled=True)
            state.confident = min(sampled) >= self.run.config.target_success
            self._count(start)
            if state.confident and self._practice_solved():
                return True
        return failure <= PRACTICE_BELOW and metrics.update - state.verified >= VERIFY_FAILING_EVERY

    def _practice_solved(self) -> bool:
        """Whether the problems to practice are now solved greedily."""
        trainer = self.trainer
        practice = trainer.practice
        solved = practice is None or bool(play(trainer.policy, trainer.task, practice).success.all())
        return bool(trainer.group.broadcast_numbers([float(solved)])[0])

    def _verify(self) -> Verified:
        """Play the whole training split greedily."""
        start = time.perf_counter()
        trainer, state = self.trainer, self.state
        wrong: list[Problems] = [trainer.draw()[1][:0]]

        def collect(rollout: Rollout) -> None:
            if not bool(rollout.success.all()):
                wrong.append(rollout.problems[~rollout.success])

        which: dict[str, Any] = {"stages": trainer.stages, "split": self.run.config.split}
        evaluation = self._by_leader(lambda: evaluate(trainer.policy, trainer.task, **which, on_rollout=collect))
        best = evaluation.total().successes >= state.best
        if best:
            state.best = evaluation.total().successes
            self.best_weights = copy.deepcopy(trainer.policy.state_dict())
        practice = Batch.cat(wrong)[:: 1 + sum(map(len, wrong)) // MAX_PRACTICE].map(trainer.group.broadcast)
        trainer.practice = practice if len(practice) else None
        state.verified = trainer.updates
        state.solved = state.confident and evaluation.reaches(self.run.config.target_success)
        self._count(start)
        return Verified(trainer.updates, evaluation, state.elapsed, best, state.solved, trainer=trainer)

    def _finish(self) -> Finished:
        trainer, config = self.trainer, self.run.config
        if self.best_weights is not None:
            trainer.policy.load_state_dict(self.best_weights)
        generator = torch.Generator(config.device).manual_seed(config.seed)
        finished = Finished(
            run=self.run,
            evaluation=self._by_leader(lambda: evaluate(trainer.policy, trainer.task)),
            sampled=self._by_leader(lambda: evaluate(trainer.policy, trainer.task, generator=generator)),
            updates=trainer.updates,
            episodes=trainer.episodes,
            steps=trainer.steps,
            seconds=self.state.elapsed,
            trainer=trainer,
        )
        trainer.group.close()
        return finished

    def _by_leader(self, judge: Callable[[], Evaluation]) -> Evaluation:
        """What rank 0 finds, on every process."""
        group = self.trainer.group
        if group.size == 1:
            return judge()
        return Evaluation.of(json.loads(group.broadcast_text(json.dumps(judge().as_dict()) if group.is_leader else "")))

    def _count(self, start: float) -> None:
        """Count the seconds since `start`, by rank 0's clock: all processes must agree on the budget."""
        spent = time.perf_counter() - start
        self.state.elapsed = self.trainer.group.broadcast_numbers([self.state.elapsed + spent])[0]

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
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises any of these
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device: {name!r} is not available here ({reason}); expected cpu") from error
