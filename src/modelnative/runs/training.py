"""From a configuration to a verified policy: train, verify, keep, until all is solved or the budget is spent."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelnative.errors import UserError, shown
from modelnative.evidence.evaluate import Evaluation, evaluate
from modelnative.runs.events import Checkpointed, Finished, Interrupted, Verified
from modelnative.runs.files import Held
from modelnative.runs.folder import RunFolder
from modelnative.runs.loggers import make_loggers
from modelnative.runs.loop_state import VERIFY_EVERY, LoopState
from modelnative.runs.run import Run, new_folder
from modelnative.runs.signals import collect_signals
from modelnative.tasks import make_task
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.curriculum import Curriculum
from modelnative.training.events import Alarmed, CallbackLike, Event, Started, Updated
from modelnative.training.metrics import Metrics, stage_success
from modelnative.training.parallel import own_device
from modelnative.training.rollout import Rollout, play
from modelnative.training.trainer import Trainer

VERIFY_FAILING_EVERY = 40  # the same where sampled success is not yet what is asked for
MEASURE_BELOW = 0.01  # smoothed failure of the worst stage below which sampled success is measured
PRACTICE_BELOW = 0.05  # smoothed failure of the worst stage below which a verification shows what to practice
SAMPLED_EPISODES = 8192  # of each stage, to measure sampled success
MAX_PRACTICE = 4096  # problems to practice at a time
MAX_REASON = 160  # characters of torch's reason in a message


@dataclass
class Training:
    """A verified training in a run folder: iterate over `events()`. The trainer's callbacks get the same events.

    With `torchrun` every process makes one and has the same events; rank 0 alone verifies and writes. While it exists,
    no other process can train in the folder.

    Attributes:
        saved: the update of the newest checkpoint.
        failure: what a callback raised; it is raised again when the update is complete and in a checkpoint.
        held: what is released at the end.
        lock: of the folder, in the process that writes.

    Example:
        >>> training = Training.start(Path("run"), recipe())  # doctest: +SKIP
        >>> for event in training.events():  # doctest: +SKIP
        ...     print(event)
    """

    run: Run
    trainer: Trainer
    state: LoopState = field(default_factory=LoopState)
    best_weights: dict[str, Tensor] | None = None
    saved: int = 0
    failure: BaseException | None = None
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    lock: Held | None = None

    @classmethod
    def start(
        cls,
        path: Path | None,
        config: TrainConfig,
        *,
        task: AnyTask | None = None,
        policy: nn.Module | None = None,
        curriculum: Curriculum | None = None,
        callbacks: Sequence[CallbackLike] = (),
    ) -> Training:
        """A new run folder (None: a new one under `runs/`), with a first checkpoint; the rest is as for `Trainer`.

        Raises:
            UserError: a field is not allowed, or the folder cannot be made.
        """
        require_device(own_device(config.device))
        task = make_task(config.task, **config.options) if task is None else task
        trainer = Trainer(task, config, policy, curriculum, callbacks)
        load_initial(trainer)
        run = Run(path or new_folder(config), config)
        with contextlib.ExitStack() as held:
            training = cls(run, trainer)
            if trainer.group.is_leader:
                run.require_new()  # before a lock file is put there
                training._log(held)
                training.lock = run.lock()
                held.callback(training.lock.release)
                Run.create(run.path, config, lambda run: run.save(trainer, dataclasses.asdict(training.state)))
            return dataclasses.replace(training._agreed(), held=held.pop_all())

    @classmethod
    def resume(
        cls,
        path: Path,
        *,
        updates: int | None = None,
        minutes: float | None = None,
        policy: nn.Module | None = None,
        curriculum: Curriculum | None = None,
        callbacks: Sequence[CallbackLike] = (),
    ) -> Training:
        """The run in `path`, at its newest checkpoint; a larger budget of updates or minutes extends it.

        Raises:
            UserError: it is not a run, is finished, its checkpoint is damaged or of another task, or another process
                trains in it.
        """
        run = Run.open(path)
        budget = {name: value for name, value in {"updates": updates, "minutes": minutes}.items() if value is not None}
        if not budget:
            run.require_unfinished()
        run = dataclasses.replace(run, config=with_fields(run.config, budget))
        require_device(own_device(run.config.device))
        trainer = Trainer(run.task(unchanged=True), run.config, policy, curriculum, callbacks)
        lock = None
        with contextlib.ExitStack() as held:
            if trainer.group.is_leader:
                lock = run.lock()
                held.callback(lock.release)
                if not budget:
                    run.require_unfinished()  # by the process that held the lock until now
            if run.checkpoints() or run.metrics():
                state = LoopState.of(run.restore(trainer), run)
            else:  # an earlier version was killed before it wrote the first one
                state = LoopState()
                load_initial(trainer)
            best = run.weights() if run.weights_path.exists() else None
            training = cls(run, trainer, state, best, trainer.updates, lock=lock)
            if budget and not training._continues:
                spent = f"{trainer.updates} updates in {state.elapsed / 60:.3g} minutes"
                solved = ", and every training problem is solved" if state.solved else ""
                raise UserError(f"updates: {run.config.updates} is not allowed; expected more than {spent}{solved}")
            if trainer.group.is_leader:
                training._log(held)
                run.forget_after(trainer.updates)
                if budget:  # the verdict first: what has one would count as finished
                    run.result_path.unlink(missing_ok=True)
                    run.report_path.unlink(missing_ok=True)
                    run.write_config()
            return dataclasses.replace(training._agreed(), held=held.pop_all())

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

    def events(self) -> Generator[Event, None, None]:
        """Train to the end, and yield every event.

        Ctrl-C, SIGTERM and SIGHUP end it after the current update, with a checkpoint; a second Ctrl-C ends it at once.
        So does whoever stops to iterate. When a callback raises, the update is completed, a checkpoint is written, and
        then the training ends with that exception.

        Raises:
            UserError: the disk is full, the folder is gone or another one, a process is gone, or the numbers are no
                longer finite; the newest checkpoint stands.
        """
        trainer, group = self.trainer, self.trainer.group
        parameters = sum(parameter.numel() for parameter in trainer.parameters)
        with self.held, collect_signals() as received:
            started = Started(self.run, trainer.updates, trainer.task.spec.stages, parameters, trainer=trainer)
            yield from self._complete([self._emit(started)])
            for events in self._parts():
                yield from self._complete(events)
                signal = group.max(received[0] if received else 0)  # whichever process received it
                if signal and not self.state.solved:
                    yield from self._complete([self._checkpoint()] if self.saved < trainer.updates else [])
                    group.close()
                    self.held.close()
                    yield from self._complete(
                        [self._emit(Interrupted(self.run, trainer.updates, signal, trainer=trainer))]
                    )
                    return
            verified = [self._emit(self._verify())] if self.state.verified != trainer.updates else []
            yield from self._complete([*verified, self._checkpoint()])
            finished = self._emit(self._finish())
            self.held.close()
            yield from self._complete([finished])

    def _parts(self) -> Iterator[list[Event]]:
        """The training in parts; after each of them it can be left."""
        start = time.perf_counter()
        for event in self.trainer.prepare_curriculum():
            self._count(start)
            start = time.perf_counter()
            yield [self._emit(event), *([self._checkpoint()] if event.ended else [])]
        while self._continues:
            yield self._update()

    def _update(self) -> list[Event]:
        """One update, with all that is due after it; only then can the training be left."""
        start = time.perf_counter()
        metrics = self.trainer.update()
        self._require_finite(metrics)
        self._count(start)
        events = [self._emit(Updated(metrics, self.state.elapsed, trainer=self.trainer))]
        for alarm in self.trainer.alarms:
            events.append(self._emit(Alarmed(metrics.update, alarm, trainer=self.trainer)))
            if self.run.config.alarms == "stop":
                self.failure = self.failure or UserError(f"alarm at update {metrics.update}: {alarm.text}")
        if self._verification_due(metrics):
            events.append(self._emit(self._verify()))
        if metrics.update % self.run.config.checkpoint_every == 0:
            events.append(self._checkpoint())
        return events

    def _complete(self, events: list[Event]) -> Iterator[Event]:
        """Yield the events of a complete update. If the caller or a callback ends it here, a checkpoint comes first."""
        try:
            if self.failure is not None:
                raise self.failure
            yield from events
        except BaseException:
            if self.saved < self.trainer.updates:
                self._checkpoint()
            raise

    def _emit(self, event: Event) -> Event:
        """Write what the event says, then call the callbacks."""
        if self.trainer.group.is_leader:
            if self.lock is not None:
                self.lock.require_in_place()
            RunFolder(self.run)(event)  # an error in it ends the training here: a checkpoint would hide the gap
        try:
            self.trainer.emit(event)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a callback may raise anything; `_complete` raises it)
            self.failure = self.failure or error
        return event

    def _log(self, held: contextlib.ExitStack) -> None:
        """Add the loggers that the configuration names, which are closed at the end."""
        loggers = make_loggers(self.run.config.log)
        for logger in loggers:
            held.callback(logger.end)
        self.trainer.callbacks[:0] = loggers

    def _checkpoint(self) -> Event:
        event = Checkpointed(self.trainer.updates, dataclasses.asdict(self.state), trainer=self.trainer)
        self.saved = event.update
        return self._emit(event)

    @property
    def _continues(self) -> bool:
        """Neither solved nor at the end of its budget."""
        config, state = self.run.config, self.state
        late = config.minutes and state.elapsed >= config.minutes * 60
        return self.trainer.updates < config.updates and not state.solved and not late

    def _verification_due(self, metrics: Metrics) -> bool:
        """Whether to verify, for what it costs: once sampled success is as asked for, or to find what to practice."""
        state, failure = self.state, self.trainer.curriculum.failure
        asked = 1 - self.run.config.target_success
        state.confident = False
        if failure <= max(MEASURE_BELOW, asked) and metrics.update - max(state.verified, state.sampled) >= VERIFY_EVERY:
            start = time.perf_counter()
            state.sampled = metrics.update
            sampled = stage_success(
                self.trainer, min(SAMPLED_EPISODES, self.trainer.task.evaluation_size), sampled=True
            )
            state.confident = min(sampled) >= self.run.config.target_success
            self._count(start)
            if state.confident and self._practice_solved():
                return True
        return failure <= max(PRACTICE_BELOW, asked) and metrics.update - state.verified >= VERIFY_FAILING_EVERY

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
        if not all(math.isfinite(value) for value in vars(metrics).values() if isinstance(value, float)):
            raise UserError(
                f"optimizer.learning_rate: {self.run.config.optimizer.learning_rate!r} made the numbers overflow at "
                f"update {metrics.update}; start again with a smaller one"
            )


def load_initial(trainer: Trainer) -> None:
    """Give the policy the best weights of the run that `config.init` names; all else starts anew.

    Raises:
        UserError: it is not a run, or its network or its tokens are others.
    """
    if not trainer.config.init:
        return
    try:
        source = Run.open(Path(trainer.config.init))
        theirs, ours = source.task().spec, trainer.task.spec
        for name in ("vocabulary", "start", "end"):
            if getattr(theirs, name) != getattr(ours, name):
                raise UserError(f"the {name} of its task {theirs.name} is not that of {ours.name}")
        source.load_into(trainer.policy)
    except UserError as error:
        raise UserError(f"init: {shown(trainer.config.init)} is not allowed; {error}") from error


def require_device(name: str) -> None:
    """Raise a `UserError` unless torch can compute there."""
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError, TypeError, ValueError) as error:  # torch raises any of these
        first = str(error).strip().partition("\n")[0].partition(". ")[0]  # some list all of torch's kernels
        reason = first if len(first) < MAX_REASON else type(error).__name__
        raise UserError(f"device: {shown(name)} is not available here ({reason}); expected cpu") from error
