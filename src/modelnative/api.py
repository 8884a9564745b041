"""What a program calls; the command line calls nothing else."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from modelnative.bench.measure import BenchResult, TimeToSolution, default_config, require_measurable
from modelnative.bench.measure import bench as _bench
from modelnative.bench.profile import ProfiledOperation, profile_updates
from modelnative.errors import UserError
from modelnative.evidence.certificate import Certificate
from modelnative.evidence.certify import certify as _certify
from modelnative.evidence.evaluate import Evaluation, episodes
from modelnative.evidence.evaluate import evaluate as _evaluate
from modelnative.evidence.explain import Explanation
from modelnative.evidence.explain import explain as _explain
from modelnative.evidence.tutorial_comparison import TutorialComparison, compare_tutorial
from modelnative.policies.policy import Policy
from modelnative.runs.files import append_lines, begin_lines
from modelnative.runs.run import Run
from modelnative.runs.team import Team
from modelnative.runs.training import Event, Finished, Interrupted, Training
from modelnative.studio.report import write_report, write_seeds
from modelnative.studio.sweep_plot import write_comparison
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.options import Options, carry_out, check_all
from modelnative.sweeps.results import Cell, Row, cells, read_row
from modelnative.sweeps.scheduler import Event as SweepEvent
from modelnative.sweeps.scheduler import SweepEnded, SweepInterrupted
from modelnative.sweeps.spec import parse_spec, read_spec
from modelnative.tasks import make_task, require_task, task_name
from modelnative.tasks.contract.task import AnyTask, Split, require
from modelnative.tasks.importing import require_not_importing
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe

Watch = Callable[[Event], None]
TeamWatch = Callable[[int, Event], None]


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


def train_config(config: TrainConfig, out: str | Path | None = None, watch: Watch | None = None) -> Finished:
    """As `train`, from a whole configuration."""
    path = Path(out) if out is not None else _new_folder(config, str(config.seed))
    return _follow(Training.start(path, config), watch)


def train_seeds(
    config: TrainConfig, seeds: int, out: str | Path | None = None, watch: TeamWatch | None = None
) -> list[Finished]:
    """Train several seeds of one configuration side by side as one computation, from `config.seed` on.

    Cheaper than one after the other; `out` gets a run folder `seed-N` for each, and a report of all. Each result is
    that of the seed alone but for rounding.

    Raises:
        UserError: a field is wrong, the core is not a gru, or the folder cannot be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; `resume_seeds` continues.

    Example:
        >>> import modelnative as mn
        >>> finished = mn.train_seeds(mn.recipe(), 10)  # doctest: +SKIP
    """
    path = Path(out) if out is not None else _new_folder(config, f"{seeds}-seeds")
    return _follow_team(Team.start(path, config, seeds), watch)


def resume_seeds(folder: str | Path, watch: TeamWatch | None = None) -> list[Finished]:
    """Continue the unfinished seeds of an interrupted `train_seeds`.

    Raises:
        UserError: it has no runs, all are finished, or a checkpoint is damaged.
        KeyboardInterrupt: Ctrl-C or SIGTERM; they can be resumed again.
    """
    return _follow_team(Team.resume(Path(folder)), watch)


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
    progress: Callable[[str], None] | None = None,
    options: dict[str, Any] | None = None,
) -> Evaluation:
    """Play every problem once, greedily unless `sampled`, and count; nothing is estimated.

    Args:
        agent: an agent or a run folder.
        stages: names; all by default.
        split: `train`, `heldout`, or `all`, which counts both apart.
        sampled: draw the actions at temperature 1, from the run's seed.
        episodes_file: write a JSON line for every episode there; what stood there is replaced.
        progress: called with one line before each stage and split.
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

    return _evaluate(
        agent.policy,
        task,
        stages=stages,
        split=split,
        generator=generator,
        progress=progress,
        on_rollout=None if file is None else lambda rollout: append_lines(file, episodes(task, rollout)),
    )


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
    progress: Callable[[str], None] | None = None,
) -> Certificate:
    """How far agents get on a task that should fail on it, whether its oracle always succeeds, and what is wrong.

    Args:
        task: a name, `package.module:Class`, or a task itself.
        stage: a stage's name, or several; all by default.
        options: the options of a task that is named.
        problems: stages with at most so many are counted whole; of others so many are drawn.
        seconds: of training a stage, shared by the network without memory and the one that cannot see the problem.
        train: whether to train them.
        progress: called with one line before each measurement.

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
    certificate = _certify(made, stages=stages, problems=problems, seconds=seconds, train=train, progress=progress)
    return dataclasses.replace(certificate, task=name or certificate.task)


def tutorial(*, seed: int = 0, updates: int = 100) -> TutorialComparison:
    """Train the published tutorial's recipe and a corrected one; measure both by score and by the declared target.

    Raises:
        UserError: `seed` or `updates` is not allowed.
    """
    return compare_tutorial(seed, updates)


@dataclasses.dataclass(frozen=True)
class Swept:
    """What a sweep has come to: its folder, a row a trial, and the rows of all seeds together."""

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
    watch: Callable[[SweepEvent], None] | None = None,
) -> Swept:
    """Train every trial of a sweep, each in a process of its own; what is finished already is not repeated.

    Args:
        spec: a TOML or JSON file, or what would stand in it.
        out: the sweep's folder, by default `sweeps/NAME`; if the sweep was begun there, it is continued.
        jobs: trials at a time; by default as many as there are cores for.
        retries: how often a trial that dies is tried again, from its newest checkpoint.
        on: `local` processes, `ray`, or `auto`: Ray where it is installed.
        address: of a Ray cluster; by default Ray runs on this machine.
        dry_run: check everything, and return the rows as they stand; train and write nothing.
        watch: is given every event as it happens.

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
    return _sweep(planned, Options(jobs, retries, on, address), dry_run, watch)


def resume_sweep(
    folder: str | Path,
    *,
    jobs: int | None = None,
    retries: int = 2,
    on: str = "auto",
    address: str | None = None,
    dry_run: bool = False,
    watch: Callable[[SweepEvent], None] | None = None,
) -> Swept:
    """Continue a sweep from its folder alone; all else is as for `sweep`."""
    return _sweep(Sweep.open(Path(folder)), Options(jobs, retries, on, address), dry_run, watch)


def bench(
    config: TrainConfig | None = None,
    *,
    seconds: float = 5.0,
    processes: int | None = None,
    compiled: bool = False,
    solve: int = 0,
    progress: Callable[[str], None] | None = None,
) -> BenchResult:
    """How fast this machine is, and how much of it a training uses.

    Args:
        config: the training; by default the recipe with large batches, one epoch and no hints.
        seconds: for each measurement.
        processes: that train together, each with one thread; by default one for each core.
        compiled: measure the environment under `torch.compile`, too, which takes up to a minute.
        solve: seeds of the recipe to train to their end, for the time to solution.
        progress: called with one line before each measurement.

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
        config or default_config(),
        seconds=seconds,
        processes=processes,
        compiled=compiled,
        solve=solve,
        train=_solve,
        progress=progress,
    )


def _solve(config: TrainConfig) -> TimeToSolution:
    """Train one seed to its end, in a run folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        end = train_config(config, Path(folder) / "run")
    return TimeToSolution(config.seed, end.seconds, end.updates, end.evaluation.perfect, end.evaluation.line())


def profile(config: TrainConfig | None = None) -> list[ProfiledOperation]:
    """What torch does in an update of `bench`'s training, with one thread, the most expensive operation first.

    Raises:
        UserError: the configuration is not sensible.
    """
    config = config or default_config()
    require_measurable(config)
    return profile_updates(config)


def _sweep(planned: Sweep, options: Options, dry_run: bool, watch: Callable[[SweepEvent], None] | None) -> Swept:
    """Follow a sweep to its end, tell `watch`, draw the comparison."""
    if dry_run:
        check_all(planned, options)
        return Swept(planned, tuple(read_row(planned, trial) for trial in planned.trials))
    for event in carry_out(planned, options, f"{write_report.__module__}:{write_report.__name__}"):
        if isinstance(event, SweepEnded) and (grouped := cells(event.rows)):
            write_comparison(planned.path, planned.spec.name, grouped)
        if watch is not None:
            watch(event)
        if isinstance(event, SweepInterrupted):
            raise KeyboardInterrupt(f"resume with: modelnative sweep --resume {planned.path}")
        if isinstance(event, SweepEnded):
            return Swept(planned, event.rows)
    raise AssertionError("a sweep ends with SweepEnded or SweepInterrupted")


def _new_folder(config: TrainConfig, ending: str) -> Path:
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{config.task}-{config.core}-{config.algorithm}-{ending}"
    return Path("runs") / name.replace(":", ".")


def _follow_team(team: Team, watch: TeamWatch | None) -> list[Finished]:
    """Run to the end of all seeds, tell `watch`, write the reports."""
    finished = []
    for seed, event in team.events():
        if watch is not None:
            watch(seed, event)
        if isinstance(event, Interrupted):
            raise KeyboardInterrupt(f"resume with: modelnative resume {team.path}")
        if isinstance(event, Finished):
            write_report(event.run)
            finished.append(event)
    write_seeds(team.path)
    return finished


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
    "Swept",
    "bench",
    "certify",
    "evaluate",
    "explain",
    "load",
    "make_task",
    "profile",
    "resume",
    "resume_seeds",
    "resume_sweep",
    "sweep",
    "train",
    "train_config",
    "train_seeds",
    "tutorial",
]
