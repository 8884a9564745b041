"""What a program calls; the command line calls nothing else."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from modelnative.bench.measure import Bench, check, usual_config
from modelnative.bench.measure import bench as _bench
from modelnative.bench.profile import Operation, profile_updates
from modelnative.errors import UserError
from modelnative.evidence.certify import Certificate
from modelnative.evidence.certify import certify as _certify
from modelnative.evidence.evaluate import Evaluation, episodes
from modelnative.evidence.evaluate import evaluate as _evaluate
from modelnative.evidence.explain import Explanation
from modelnative.evidence.explain import explain as _explain
from modelnative.policies.policy import Policy
from modelnative.runs.files import append_lines, begin_lines
from modelnative.runs.run import Run
from modelnative.runs.training import Event, Finished, Interrupted, Training
from modelnative.studio.report import write_report, write_sweep_report
from modelnative.studio.tutorial import Comparison, compare
from modelnative.sweeps.events import SweepEvent, SweepFinished, SweepInterrupted
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.options import SweepOptions, check_all, run_sweep
from modelnative.sweeps.results import Cell, Row, cells, read_row
from modelnative.sweeps.seeds import seeds_sweep
from modelnative.sweeps.spec import parse_spec, read_spec
from modelnative.tasks import make_task, require_task, task_name
from modelnative.tasks.contract.task import AnyTask, Split, require
from modelnative.tasks.importing import require_not_importing
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe

Watch = Callable[[Event], None]
SweepCallback = Callable[[SweepEvent], None]


@dataclasses.dataclass(frozen=True)
class Agent:
    """A trained policy and the task that it was trained on."""

    policy: Policy
    task: AnyTask
    run: Run


def train(
    task: str | AnyTask = "arithmetic",
    *,
    core: str = "gru",
    algorithm: str = "ppo",
    curriculum: str = "hints",
    out: str | Path | None = None,
    watch: Watch | None = None,
    **fields: Any,
) -> Finished:
    """Train a policy until every training problem is verified, and write the run.

    Args:
        task, core, algorithm, curriculum: names; together they choose the recipe. The task may also be an object that
            stands at the top of a file, where the run can find it again (see `task_name`).
        out: the run folder, which must not exist; by default a new one under `runs/`.
        watch: is given every event as it happens; with `torchrun`, by rank 0 alone.
        fields: fields of `TrainConfig` to change, nested ones as dictionaries: `seed=3, policy={"width": 32}`.

    Returns:
        The verdict on the best weights, and where they are.

    Raises:
        UserError: a name or field is wrong, or the folder cannot be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the run can be resumed.

    Example:
        >>> import modelnative as mn
        >>> finished = mn.train(seed=1, out="runs/mine")  # doctest: +SKIP
        >>> finished.evaluation.line()  # doctest: +SKIP
        'T0=1.000 T1=1.000 T2=1.000 (111000/111000 problems)'
    """
    require_not_importing()
    name = task if isinstance(task, str) else task_name(task)
    config = with_fields(recipe(name, core, algorithm, curriculum), fields)
    return train_config(config, out, watch)


def train_seeds(
    config: TrainConfig, seeds: int, out: str | Path | None = None, callbacks: Sequence[SweepCallback] = ()
) -> SweepResult:
    """Train several seeds of one configuration in parallel, each in a process of its own; see `seeds_sweep`."""
    path = Path(out) if out is not None else _new_folder(config, f"{seeds}-seeds")
    return _sweep(seeds_sweep(config, seeds, path), SweepOptions(on="local"), False, callbacks)


def train_config(config: TrainConfig, out: str | Path | None = None, watch: Watch | None = None) -> Finished:
    """As `train`, from a whole configuration."""
    path = Path(out) if out is not None else _new_folder(config, str(config.seed))
    return _follow(Training.start(path, config), watch)


def resume(run: str | Path, *, watch: Watch | None = None) -> Finished:
    """Continue an interrupted run from its newest checkpoint, bit for bit as if it had never stopped.

    Raises:
        UserError: it is not a run, is finished, or its checkpoint is damaged or of another task.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the run can be resumed again.
    """
    return _follow(Training.resume(Path(run)), watch)


def load(run: str | Path, options: dict[str, Any] | None = None) -> Agent:
    """The best verified policy of a run; the newest checkpoint's while it is still training.

    Args:
        run: the folder.
        options: options of the task to change, such as `{"shapes": "unseen"}`, to see what else the policy can do. What
            it reads, writes and is called on must stay as it was.

    Raises:
        UserError: it is not a run, its weights are damaged or of another task, or the options ask for another network.
    """
    opened = Run.open(Path(run))
    task = opened.task()
    policy = opened.policy(task)
    if options:
        other = make_task(opened.config.task, **{**opened.config.options, **options})
        for name in ("vocabulary", "stages", "context_length", "feedback_width", "start", "end"):
            was, would = getattr(task.spec, name), getattr(other.spec, name)
            said = " ".join(f"{option}={value}" for option, value in options.items())
            allowed = f"options that leave the task's {name} as the network knows it ({was}; they make it {would})"
            require(was == would, "options", said, allowed)
        task = other
    return Agent(policy, task, opened)


def evaluate(
    agent: Agent | str | Path,
    *,
    stages: Sequence[str] | None = None,
    split: Split = "all",
    sampled: bool = False,
    episodes_file: str | Path | None = None,
    watch: Callable[[int], None] | None = None,
    options: dict[str, Any] | None = None,
) -> Evaluation:
    """Play every problem once, greedily unless `sampled`, and count; nothing is estimated.

    Args:
        agent: an agent or a run folder.
        stages: names; all by default.
        split: `train`, `heldout`, or `all`, which counts both apart.
        sampled: draw the actions at temperature 1, from the run's seed.
        episodes_file: write a JSON line for every episode there; what stood there is replaced.
        watch: is given the number of episodes played, chunk by chunk.
        options: of the task, changed after training; only with a run folder. See `load`.

    Raises:
        UserError: an unknown stage or split, or a file that cannot be written, or options for another network.
    """
    if isinstance(agent, Agent):
        require(not options, "options", options, "none for an agent that is loaded already; give them to load")
    else:
        agent = load(agent, options)
    task, generator = agent.task, None
    if sampled:
        generator = torch.Generator().manual_seed(agent.run.config.seed)
    file = Path(episodes_file) if episodes_file is not None else None
    if file is not None:
        begin_lines(file)

    def keep(rollout: Any) -> None:
        if file is not None:
            append_lines(file, episodes(task, rollout))
        if watch is not None:
            watch(len(rollout.success))

    return _evaluate(agent.policy, task, stages=stages, split=split, generator=generator, watch=keep)


def explain(agent: Agent | str | Path, *, stage: str, problem: str) -> Explanation:
    """One problem, token by token, beside the oracle's program.

    Raises:
        UserError: an unknown stage, or a problem that is not of it.
    """
    agent = agent if isinstance(agent, Agent) else load(agent)
    return _explain(agent.policy, agent.task, stage, problem)


def certify(
    task: str | AnyTask,
    stage: str | Sequence[str] | None = None,
    *,
    options: dict[str, Any] | None = None,
    problems: int = 100_000,
    seconds: float = 20.0,
    train: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Certificate:
    """How far agents get on a task that should fail on it, whether its oracle always succeeds, and what is wrong.

    Args:
        task: a name, `package.module:Class`, or a task itself.
        stage: a stage's name, or several; all by default.
        options: the options of a task that is named.
        problems: stages with at most so many are counted whole; of others so many are drawn.
        seconds: of training a stage, shared by the network without memory and the one that cannot see the problem.
        train: whether to train them.
        tell: is given a line before everything that takes time.

    Returns:
        The certificate. Ctrl-C ends it early, with what was measured so far; `interrupted` says so.

    Raises:
        UserError: an unknown task, option or stage, a number that is not allowed, or a class that cannot be made.

    Example:
        >>> import modelnative as mn
        >>> certificate = mn.certify("tutorial", "T0", problems=1000, train=False)
        >>> certificate.sound, certificate.stages[0].figures["constant"].how
        (False, 'MUL ADD ANS (exact search, up to 3 tokens)')
    """
    made, name = task, ""
    if isinstance(made, str):
        name = made
        made = make_task(name, **(options or {}))
    elif options:
        raise UserError(f"options: {options!r} is not allowed beside a task that is made already")
    stages = [stage] if isinstance(stage, str) else stage
    made = require_task(made)
    certificate = _certify(made, stages=stages, problems=problems, seconds=seconds, train=train, tell=tell)
    return dataclasses.replace(certificate, task=name or certificate.task)


def tutorial(*, seed: int = 0, updates: int = 100) -> Comparison:
    """The published tutorial's recipe beside a mended one: its published score, and the success by the declared target.

    Raises:
        UserError: `seed` or `updates` is not allowed.
    """
    return compare(seed, updates)


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """The result of a sweep: its folder, one row for each trial, and the rows grouped over seeds."""

    sweep: Sweep
    rows: tuple[Row, ...]

    @property
    def cells(self) -> list[Cell]:
        """The rows, grouped over seeds."""
        return cells(self.rows)

    @property
    def failed(self) -> list[Row]:
        """The trials without a result."""
        return [row for row in self.rows if row.status == "failed"]


def sweep(
    spec: str | Path | dict[str, Any],
    out: str | Path | None = None,
    *,
    jobs: int | None = None,
    retries: int = 2,
    on: str = "auto",
    address: str | None = None,
    dry_run: bool = False,
    callbacks: Sequence[SweepCallback] = (),
) -> SweepResult:
    """Train every trial of a sweep, each in a process of its own; what is finished already is not repeated.

    Args:
        spec: a TOML or JSON file, or what would stand in it.
        out: the sweep's folder, by default `sweeps/NAME`; if the sweep was begun there, it is continued.
        jobs: trials at a time; by default as many as there are cores for.
        retries: how often a trial that dies is tried again, from its newest checkpoint.
        on: `local` processes, `ray`, or `auto`: Ray where it is installed.
        address: of a Ray cluster; by default Ray runs on this machine.
        dry_run: check everything, and return the rows as they stand; train and write nothing.
        callbacks: each is called with every event, in order; see `modelnative.sweeps.events`.

    Raises:
        UserError: the spec or an argument is wrong, or the folder is another sweep's or cannot be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the same call continues.

    Example:
        >>> import modelnative as mn
        >>> swept = mn.sweep({"seeds": 10, "grid": {"algorithm": ["ppo", "grpo"]}})  # doctest: +SKIP
        >>> [(cell.label, cell.solved, cell.trials) for cell in swept.cells]  # doctest: +SKIP
        [('algorithm=ppo', 10, 10), ('algorithm=grpo', 10, 10)]
    """
    read = parse_spec(spec) if isinstance(spec, dict) else read_spec(Path(spec))
    planned = Sweep.planned(Path(out) if out is not None else Path("sweeps") / read.name, read)
    return _sweep(planned, SweepOptions(jobs, retries, on, address), dry_run, callbacks)


def resume_sweep(
    folder: str | Path,
    *,
    jobs: int | None = None,
    retries: int = 2,
    on: str = "auto",
    address: str | None = None,
    dry_run: bool = False,
    callbacks: Sequence[SweepCallback] = (),
) -> SweepResult:
    """Continue a sweep from its folder alone; all else is as for `sweep`."""
    return _sweep(Sweep.open(Path(folder)), SweepOptions(jobs, retries, on, address), dry_run, callbacks)


def bench(
    config: TrainConfig | None = None,
    *,
    seconds: float = 5.0,
    processes: int | None = None,
    compiled: bool = False,
    solve: int = 0,
    tell: Callable[[str], None] | None = None,
) -> Bench:
    """How fast this machine is, and how much of it a training uses.

    Args:
        config: the training; by default the recipe with large batches, one epoch and no hints.
        seconds: for each measurement.
        processes: that train together, each with one thread; by default one for each core.
        compiled: measure the environment under `torch.compile`, too, which takes up to a minute.
        solve: seeds of the recipe to train to their end, for the time to solution.
        tell: is given a line before everything that takes time.

    Raises:
        UserError: an argument is not sensible, or a process has died.
        KeyboardInterrupt: Ctrl-C; nothing stays behind.

    Example:
        >>> import modelnative as mn
        >>> measured = mn.bench()  # doctest: +SKIP
        >>> measured.rate("training", processes=1).median  # doctest: +SKIP
        231234.5
    """
    return _bench(
        config or usual_config(),
        seconds=seconds,
        processes=processes,
        compiled=compiled,
        solve=solve,
        tell=tell,
    )


def profile(config: TrainConfig | None = None) -> list[Operation]:
    """What torch does in an update of `bench`'s training, with one thread, the most expensive operation first.

    Raises:
        UserError: the configuration is not sensible.
    """
    config = config or usual_config()
    check(config)
    return profile_updates(config)


def _sweep(planned: Sweep, options: SweepOptions, dry_run: bool, callbacks: Sequence[SweepCallback]) -> SweepResult:
    """Run a sweep to its end, with the reports as the first callback."""
    if dry_run:
        check_all(planned, options)
        return SweepResult(planned, tuple(read_row(planned, trial) for trial in planned.trials))
    for event in run_sweep(planned, options, f"{write_report.__module__}:{write_report.__name__}"):
        for callback in (write_sweep_report, *callbacks):
            callback(event)
        if isinstance(event, SweepInterrupted):
            raise KeyboardInterrupt(f"resume with: {planned.resume_command}")
        if isinstance(event, SweepFinished):
            return SweepResult(planned, event.rows)
    raise AssertionError("a sweep ends with SweepFinished or SweepInterrupted")


def _new_folder(config: TrainConfig, ending: str) -> Path:
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{config.task}-{config.core}-{config.algorithm}-{ending}"
    return Path("runs") / name.replace(":", ".")


def _follow(training: Training, watch: Watch | None) -> Finished:
    """Run to the end, tell `watch`, write the report."""
    leads = training.trainer.group.leads
    for event in training.events():
        if isinstance(event, Finished) and leads:
            write_report(training.run)
        if watch is not None and leads:
            watch(event)
        if isinstance(event, Interrupted):
            raise KeyboardInterrupt(f"resume with: modelnative resume {training.run.path}")
        if isinstance(event, Finished):
            return event
    raise AssertionError("a training ends with Finished or Interrupted")


__all__ = [
    "Agent",
    "SweepResult",
    "bench",
    "certify",
    "evaluate",
    "explain",
    "load",
    "make_task",
    "profile",
    "resume",
    "resume_sweep",
    "sweep",
    "train",
    "train_config",
    "train_seeds",
    "tutorial",
]
