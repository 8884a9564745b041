"""Recipes, and training: one run, or many seeds of it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from torch import nn

from modelnative.api.sweeps import SweepCallback, SweepResult, follow_sweep
from modelnative.bridges.hub import PREFIX, fetch
from modelnative.errors import in_words, require_path
from modelnative.policies.contract import Policy
from modelnative.policies.registry import policy_name
from modelnative.runs.events import Finished, Interrupted
from modelnative.runs.run import Run, new_folder
from modelnative.runs.training import Training
from modelnative.studio.report import write_report
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.options import SweepOptions
from modelnative.tasks import TASKS, make_task, require_task, task_name
from modelnative.tasks.contract.task import AnyTask, require
from modelnative.tasks.importing import maker_of, require_not_importing
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.curriculum import Curriculum
from modelnative.training.events import CallbackLike
from modelnative.training.recipes import recipe as named_recipe


@dataclasses.dataclass(frozen=True)
class Agent:
    """A trained policy and the task that it was trained on."""

    policy: Policy
    task: AnyTask
    run: Run


def recipe(
    task: str | AnyTask = "arithmetic", algorithm: str = "ppo", core: str = "gru", curriculum: str | None = None
) -> TrainConfig:
    """The configuration that works for this choice; change its fields with `with_fields` or give them to `train`.

    Args:
        task: a name, `module:Name`, or a task.
        algorithm, core: registered names, or `module:Name` of your own.
        curriculum: likewise; by default `hints`, and `uniform` for tasks of other libraries, such as Gymnasium's.

    Raises:
        UserError: a name is unknown (the message has the nearest one), or a task cannot be found again by a name.
    """
    name, options = _named(task)
    return with_fields(named_recipe(name, algorithm, core, curriculum), {"options": options})


@overload
def train(
    task: str | AnyTask | None = None,
    config: TrainConfig | None = None,
    *,
    out: str | Path | None = None,
    seeds: None = None,
    policy: nn.Module | dict[str, Any] | None = None,
    curriculum: str | Curriculum | None = None,
    callbacks: Sequence[CallbackLike] = (),
    **fields: Any,
) -> Finished: ...


@overload
def train(
    task: str | AnyTask | None = None,
    config: TrainConfig | None = None,
    *,
    out: str | Path | None = None,
    seeds: int,
    policy: dict[str, Any] | None = None,
    curriculum: str | None = None,
    callbacks: Sequence[SweepCallback] = (),
    **fields: Any,
) -> SweepResult: ...


def train(
    task: str | AnyTask | None = None,
    config: TrainConfig | None = None,
    *,
    out: str | Path | None = None,
    seeds: int | None = None,
    policy: nn.Module | dict[str, Any] | None = None,
    curriculum: str | Curriculum | None = None,
    callbacks: Sequence[Any] = (),
    **fields: Any,
) -> Finished | SweepResult:
    """Train until every training problem is verified, and write a run folder.

    Args:
        task: a name, `module:Name`, or a task that can be found again by a name (see `task_name`); by default the
            configuration's.
        config: by default the recipe for the task and for the names among `fields`.
        out: the folder, which must not exist; by default a new one under `runs/`.
        seeds: train so many seeds in parallel processes, from `config.seed` on. The folder is then that of a sweep.
        policy: a module to train instead of the one that `core` names, see `Policy`; or fields of `PolicyConfig`.
        curriculum: a name, or a curriculum.
        callbacks: are called with every event: `Started`, `Updated`, `Verified`, `Checkpointed`, `Finished` and
            `Interrupted`; with `seeds`, the events of a sweep.
        fields: fields of `TrainConfig` to change, nested ones as dictionaries: `seed=3, policy={"width": 32}`.

    Returns:
        The evaluation of the best weights and where they are; with `seeds`, the rows of all of them.

    Raises:
        UserError: a name or field is wrong, or the folder cannot be written.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; the run can be resumed.

    Example:
        >>> import modelnative as mn
        >>> finished = mn.train(seed=1, out="runs/mine")  # doctest: +SKIP
        >>> finished.evaluation.line()  # doctest: +SKIP
        'T0=1.000 T1=1.000 T2=1.000 (111000/111000 problems)'
    """
    require_not_importing()
    if isinstance(curriculum, str):
        fields["curriculum"], curriculum = curriculum, None
    if isinstance(policy, dict):
        fields["policy"], policy = policy, None
    config = _configuration(task, config, policy, fields)
    if config.task.startswith("__main__:"):
        needed = "put it in a file, such as mytasks.py, and import it from there"
        require(seeds is None, "task", config.task, f"a task that other processes find: {needed}")
        warnings.warn(f"task: {config.task!r} is known to this session only; to resume it, {needed}", stacklevel=2)
    if seeds is not None:
        for name, value in (("policy", policy), ("curriculum", curriculum)):
            allowed = "no object beside seeds, which train in other processes; name it: module:Name"
            require(value is None, name, type(value).__name__, allowed)
        path = Path(out) if out is not None else new_folder(config, f"{seeds}-seeds")
        return follow_sweep(Sweep.of_seeds(config, seeds, path), SweepOptions(on="local"), False, callbacks)
    made = None if task is None or isinstance(task, str) else task
    if made is not None:
        make_task(config.task, **config.options)  # a run whose task its name does not make is refused before it starts
    parts = {"policy": policy, "curriculum": curriculum, "callbacks": [_report, *callbacks]}
    return _follow(Training.start(None if out is None else Path(out), config, task=made, **parts))  # type: ignore[arg-type]


def resume(
    folder: str | Path,
    *,
    updates: int | None = None,
    minutes: float | None = None,
    policy: nn.Module | None = None,
    curriculum: Curriculum | None = None,
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> Finished | SweepResult:
    """Continue an interrupted run or sweep, bit for bit as if it had never stopped; or extend a run.

    Args:
        folder: of a run, of `train(seeds=...)`, or of a sweep.
        updates, minutes: a new budget for the run, larger than what it has spent. A finished run is extended: its
            verdict is replaced at the end.
        policy, curriculum: the objects that were given to `train`, if any were.
        callbacks: as for `train` or `sweep`.
        options: of a sweep: `jobs`, `retries`, `on`, `address`, `dry_run`.

    Raises:
        UserError: it is neither, is finished, its checkpoint is damaged or of another task, or another process trains
            in it.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; it can be resumed again.
    """
    path = Path(folder)
    require_path("run", path)
    if options or Sweep.exists(path):
        require(updates is None, "updates", updates, "none for a sweep; extend its runs, each by its folder in trials/")
        require(minutes is None, "minutes", minutes, "none for a sweep; extend its runs, each by its folder in trials/")
        planned = Sweep.open(path)
        dry_run = options.pop("dry_run", False)
        options.setdefault("on", "local" if planned.seeds_only else "auto")  # as `train(seeds=...)` does
        return follow_sweep(planned, SweepOptions(**options), dry_run, callbacks)
    run = Run.open(path)
    if updates is minutes is None and run.result_path.exists() and not run.report_path.exists():
        found = run.result()
        finished = Finished(run, found.evaluation, found.sampled, **found.costs)  # type: ignore[arg-type]  # it was killed before its report was written
        _report(finished)
        return finished
    parts = {"policy": policy, "curriculum": curriculum, "callbacks": [_report, *callbacks]}
    return _follow(Training.resume(path, updates=updates, minutes=minutes, **parts))  # type: ignore[arg-type]


def load(run: str | Path, options: dict[str, Any] | None = None, policy: nn.Module | None = None) -> Agent:
    """The best verified policy of a run; the newest checkpoint's while it is still training.

    Args:
        run: the folder, or `hf:user/name` for an agent on the Hugging Face Hub.
        options: options of the task to change, such as `{"shapes": "unseen"}`, to test the policy on what it was not
            trained on. What it reads and writes must stay as it was.
        policy: the module that was given to `train`, if one was.

    Raises:
        UserError: it is not a run, its weights are damaged or of another task, or the options need another network.
    """
    opened = Run.open(fetch(run) if isinstance(run, str) and run.startswith(PREFIX) else Path(run))
    task = opened.task()
    loaded = opened.policy(task, policy)
    if options:
        other = make_task(opened.config.task, **{**opened.config.options, **options})
        for name in ("vocabulary", "stages", "context_length", "feedback_width", "start", "end"):
            before, after = getattr(task.spec, name), getattr(other.spec, name)
            given = " ".join(f"{option}={value}" for option, value in options.items())
            allowed = f"options that keep the task's {name}, which the network was made for ({before}, not {after})"
            require(before == after, "options", given, allowed)
        task = other
    return Agent(loaded, task, opened)


def _named(task: str | AnyTask) -> tuple[str, dict[str, Any]]:
    """The name and the options by which another process can make a task again."""
    if isinstance(task, str):
        return task, {}
    name = require_task(task).spec.name
    target = TASKS[name].target if name in TASKS else (maker_of(name) or ("",))[0]
    if target == f"{type(task).__module__}:{type(task).__qualname__}":
        return name, task.options()
    return task_name(task), {}


def _configuration(
    task: str | AnyTask | None, config: TrainConfig | None, policy: nn.Module | None, fields: dict[str, Any]
) -> TrainConfig:
    """The configuration of a training: the given one or the recipe, with some fields changed."""
    changes = dict(fields)
    allowed = "a TrainConfig, such as modelnative.recipe(task); fields of it are arguments of their own"
    require(config is None or isinstance(config, TrainConfig), "config", config, allowed)
    if config is None:
        names = {name: changes.pop(name) for name in ("algorithm", "core", "curriculum") if name in changes}
        config = recipe("arithmetic" if task is None else task, **names)
    elif task is not None:
        name, options = _named(task)
        # Options of another task mean nothing here; those of the same task stay.
        kept = config.options if isinstance(task, str) and name == config.task else options
        config = with_fields(config, {"task": name, "options": kept})
    if policy is not None:
        changes["core"] = policy_name(policy)
    return with_fields(config, changes)


def _report(event: Any) -> None:
    """A callback that writes the report of a finished run. The run has its verdict, whatever happens here."""
    if isinstance(event, Finished):
        try:
            write_report(event.run)
        except Exception as error:  # noqa: BLE001 (the report plays the user's task, and draws)
            logging.getLogger("modelnative").warning(
                "the training is finished, but its report could not be written (%s); write it again with: %s",
                in_words(error),
                event.run.command("report"),
            )


def _follow(training: Training) -> Finished:
    """Run to the end, or to the signal that stops it."""
    with contextlib.closing(training.events()) as events:
        for event in events:
            if isinstance(event, Interrupted):
                raise KeyboardInterrupt(f"resume with: {training.run.command('resume')}")
            if isinstance(event, Finished):
                return event
    raise AssertionError("a training ends with Finished or Interrupted")
