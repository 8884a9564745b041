"""What was really learned: evaluate, explain, inspect, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modelnative.api.training import Agent, load
from modelnative.errors import UserError, require_path
from modelnative.evidence.certify import certify as certify
from modelnative.evidence.clinic import clinic as clinic
from modelnative.evidence.evaluate import Evaluation, episodes, stages_and_splits
from modelnative.evidence.evaluate import evaluate as evaluate_policy
from modelnative.evidence.explain import Explanation
from modelnative.evidence.explain import explain as explain_policy
from modelnative.evidence.inspect import PAIRS, Inspection
from modelnative.evidence.inspect import inspect as inspect_policy
from modelnative.evidence.tutorial_comparison import compare_tutorial
from modelnative.policies.registry import make_policy
from modelnative.runs.files import FORMAT, append_lines, begin_lines, require_replaceable, write_json
from modelnative.runs.run import Run
from modelnative.studio.plot import write_plot
from modelnative.studio.report import write_run_report, write_sweep_reports
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import read_row
from modelnative.tasks import require_task
from modelnative.tasks.contract.task import AnyTask, Split, require
from modelnative.training.rollout import Rollout

tutorial = compare_tutorial


def evaluate(
    agent: Agent | str | Path,
    *,
    stages: Sequence[str] | None = None,
    split: Split = "all",
    sampled: bool = False,
    episodes_file: str | Path | None = None,
    options: dict[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Play every problem once, greedily unless `sampled`, and count; of endless stages, a fixed sample is played.

    Args:
        agent: an agent or a run folder.
        stages: names; all by default.
        split: `train`, `heldout`, or `all`, which counts both apart.
        sampled: draw the actions at temperature 1, from the run's seed.
        episodes_file: write a JSON line for every episode there; an existing file of episodes is replaced.
        options: of the task, changed after training; only with a run folder. See `load`.
        progress: is called with a line before everything that takes time.

    Raises:
        UserError: an unknown stage or split, a file that cannot be written, or options for another network.
    """
    if isinstance(agent, Agent):
        require(not options, "options", options, "none for an agent that is loaded already; give them to load")
    else:
        agent = load(agent, options)
    task, generator = agent.task, None
    if sampled:
        generator = torch.Generator().manual_seed(agent.run.config.seed)
    stages_and_splits(task, stages, split)  # before a file is replaced
    on_rollout = None
    if episodes_file is not None:
        file = Path(episodes_file)
        begin_lines(file)

        def on_rollout(rollout: Rollout) -> None:
            append_lines(file, episodes(task, rollout))

    return evaluate_policy(
        agent.policy, task, stages=stages, split=split, generator=generator, progress=progress, on_rollout=on_rollout
    )


def report(folder: str | Path) -> tuple[list[Path], list[str]]:
    """Write the report of a finished run again, or the reports of a sweep and of its finished trials.

    Returns:
        The files, and what is missing in them: a line for each file of the run that cannot be read.

    Raises:
        UserError: it is neither, the run has no result yet, or a file cannot be written.
    """
    path = Path(folder)
    require_path("run", path)
    if not Sweep.exists(path):
        written, faults = write_run_report(Run.open(path))
        return [written], faults
    sweep = Sweep.open(path)
    paths: list[Path] = []
    missing: list[str] = []
    for run in map(sweep.run, sweep.trials):
        if run.result_path.exists():
            written, faults = write_run_report(run)
            paths.append(written)
            missing += faults
    rows = tuple(read_row(sweep, trial) for trial in sweep.trials)
    return [*paths, *write_sweep_reports(sweep, rows)], missing


def plot(run: str | Path, file: str | Path | None = None, *, curve: str | None = None) -> Path:
    """Draw the learning curves of a run, finished or not, into a file.

    Args:
        run: the folder.
        file: PNG, SVG or PDF, by its suffix; by default `curves.svg` in the folder.
        curve: the title of the only one to draw, such as `Success`; all by default.

    Raises:
        UserError: it is no run, has no update yet or no such curve, or the file cannot be written.
    """
    path = Path(run)
    return write_plot(Run.open(path), path / "curves.svg" if file is None else Path(file), curve)


def explain(agent: Agent | str | Path, *, stage: str, problem: str) -> Explanation:
    """One problem, token by token, beside the oracle's program.

    Raises:
        UserError: an unknown stage, a problem that is not of it, or a task that does not define `parse`.
    """
    agent = agent if isinstance(agent, Agent) else load(agent)
    task = agent.task
    require(isinstance(problem, str), "problem", problem, "its text, such as '3 7 2'")
    return explain_policy(agent.policy, task, task.parse(task.spec.stage_index(stage), problem))


def inspect(
    agent: Agent | nn.Module | str | Path,
    task: AnyTask | None = None,
    *,
    stages: Sequence[str] | None = None,
    pairs: int = PAIRS,
    probes: bool = True,
    units: bool = False,
    file: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Inspection:
    """Look inside an agent by interventions: who carries what it needs from one action to the next, and is it used?

    Args:
        agent: an agent, a run folder, or any module that fulfills the contract of `Policy`.
        task: what such a module plays; none for the others.
        stages: names; all by default.
        pairs: of problems in each stage.
        probes: also ask which later actions are known in advance, with linear probes and controls.
        units: also ask which units of the hidden state each stage needs, and whether the other stages need them.
        file: write the result there, as JSON.
        progress: is called with a line before everything that takes time.

    Raises:
        UserError: an unknown stage, a stage with too few problems, no task for a module, or a file that cannot be
            written.

    Example:
        >>> import modelnative as mn
        >>> found = mn.inspect("runs/first")  # doctest: +SKIP
        >>> found.stage("T2").verdict("memory register").word  # doctest: +SKIP
        'carried'
    """
    if isinstance(agent, nn.Module):
        policy, played, untrained = agent, require_task(task), None
    else:
        require(task is None, "task", type(task).__name__, "none for an agent or a run folder, which has its own")
        agent = agent if isinstance(agent, Agent) else load(agent)
        policy, played = agent.policy, agent.task
        untrained = _untrained(agent)
    if file is not None:
        require_replaceable("out", Path(file), {"stages", "pairs"})
    found = inspect_policy(
        policy, played, stages=stages, pairs=pairs, probes=probes, units=units, untrained=untrained, progress=progress
    )
    if file is not None:
        write_json(Path(file), {"format": FORMAT, **found.as_dict()})
    return found


def _untrained(agent: Agent) -> nn.Module | None:
    """The network of a run before its training; None if the run's configuration does not make it."""
    config = agent.run.config
    try:
        made = make_policy(agent.task.spec, config.core, config.policy)
    except UserError:
        return None
    same = type(made) is type(agent.policy)
    return made.to(next(agent.policy.parameters()).device).eval() if same else None
