"""What was really learned: evaluate, explain, inspect, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modelnative.api.training import Agent, load
from modelnative.errors import UserError, require_path
from modelnative.evidence.certificate import Certificate, StageCertificate
from modelnative.evidence.certify import certify as certify_task
from modelnative.evidence.clinic import clinic as clinic
from modelnative.evidence.evaluate import Evaluation, Reference, episodes, stages_and_splits
from modelnative.evidence.evaluate import evaluate as evaluate_policy
from modelnative.evidence.explain import Explanation
from modelnative.evidence.explain import explain as explain_policy
from modelnative.evidence.inspect import PAIRS, Inspection
from modelnative.evidence.inspect import inspect as inspect_policy
from modelnative.evidence.switches import Switch, SwitchedEpisode, switched
from modelnative.evidence.tutorial_comparison import compare_tutorial
from modelnative.policies.registry import make_policy
from modelnative.runs.files import FORMAT, append_lines, begin_lines, read_json, require_replaceable, write_json
from modelnative.runs.run import Run
from modelnative.studio.plot import write_plot
from modelnative.studio.report import write_run_report, write_sweep_reports
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import read_row
from modelnative.tasks import require_task, task_entries
from modelnative.tasks.contract.task import AnyTask, Split, require
from modelnative.training.rollout import Rollout

tutorial = compare_tutorial
FLOOR_PROBLEMS = 10_000  # of a stage, that agents which should fail are tried on by `evaluate`


def certify(
    task: str | Path | AnyTask,
    stage: str | Sequence[str] | None = None,
    *,
    options: dict[str, Any] | None = None,
    problems: int = 100_000,
    seconds: float = 20.0,
    train: bool = True,
    file: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Certificate:
    """Measure how far agents get on a task that should fail on it, whether its oracle always succeeds, and its faults.

    Args:
        task: a name, `package.module:Class`, a task itself, or a run folder: the task and options of that run. Without
            an oracle, the figures `oracle` and `same_answer` are left out.
        stage: a stage's name, or several; all by default.
        options: of a task that is given by name.
        problems: stages with at most so many are counted whole; of others so many are drawn. The search for a procedure
            plays 200 times as many actions for a stage.
        seconds: of training a stage, shared by the memoryless network and the one that cannot see the problem.
        train: whether to train them.
        file: write the result there, as JSON; of a run folder, `certificate.json` in it by default, which the report
            and the studio show.
        progress: is called with a line before everything that takes time.

    Returns:
        The certificate. Ctrl-C ends it early, with what was measured so far; `interrupted` says so, and no file is
        written.

    Raises:
        UserError: an unknown task, option or stage, a number that is not allowed, a class that cannot be made, or a
            file that cannot be written.

    Example:
        >>> import modelnative as mn
        >>> certificate = mn.certify("tutorial", "T0", problems=1000, train=False)
        >>> certificate.sound, certificate.stages[0].figures["constant"].how
        (False, 'MUL ADD ANS (exact search, up to 3 tokens)')
    """
    target: str | AnyTask = str(task) if isinstance(task, Path) else task
    if isinstance(target, str) and target not in task_entries() and Run.exists(Path(target)):
        run = Run.open(Path(target))
        require(not options, "options", options, "none for a run folder, which has its own")
        target, options, file = run.config.task, run.config.options, file or run.certificate_path
    found = certify_task(
        target, stage, options=options, problems=problems, seconds=seconds, train=train, progress=progress
    )
    if file is not None and not found.interrupted:
        write_json(Path(file), {"format": FORMAT, **found.as_dict()})
    return found


def evaluate(
    agent: Agent | str | Path,
    *,
    stages: Sequence[str] | None = None,
    split: Split = "all",
    sampled: bool = False,
    episodes_file: str | Path | None = None,
    options: dict[str, Any] | None = None,
    floors: bool = False,
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
        floors: also say what the oracle and agents that should fail reach. Read from the run's `certificate.json` if it
            has these stages with these options; else measured on at most 10,000 problems of a stage, without training
            the two networks of `certify`.
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
    names = task.spec.stages if stages is None else tuple(stages)
    references = _floors(agent.run, task, names, progress) if floors else {}
    on_rollout = None
    if episodes_file is not None:
        file = Path(episodes_file)
        begin_lines(file)

        def on_rollout(rollout: Rollout) -> None:
            append_lines(file, episodes(task, rollout))

    found = evaluate_policy(
        agent.policy, task, stages=stages, split=split, generator=generator, progress=progress, on_rollout=on_rollout
    )
    return replace(found, floors=references)


def _floors(
    run: Run, task: AnyTask, stages: Sequence[str], progress: Callable[[str], None] | None
) -> dict[str, dict[str, Reference]]:
    """What `certify` found of some stages, or finds now."""
    known: dict[str, StageCertificate] = {}
    if run.certificate_path.exists():
        try:
            certificate = Certificate.of(read_json(run.certificate_path))
        except (KeyError, TypeError, ValueError) as error:
            allowed = f"a certificate; write it again with: {run.command('certify')}"
            raise UserError(f"certificate: {str(run.certificate_path)!r} is damaged; expected {allowed}") from error
        if certificate.options == task.options():
            known = {stage.stage: stage for stage in certificate.stages}
    if missing := [name for name in stages if name not in known]:
        measured = certify_task(task, missing, problems=FLOOR_PROBLEMS, train=False, progress=progress)
        known |= {stage.stage: stage for stage in measured.stages}
    return {
        name: {agent: Reference(f.rate, f.best, f.interval) for agent, f in known[name].figures.items()}
        for name in stages
        if name in known  # else Ctrl-C came first
    }


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


def plot(
    run: str | Path, file: str | Path | None = None, *, figure: str | None = None, curve: str | None = None
) -> Path:
    """Draw a figure of a run, finished or not, or of a sweep, into a file.

    Args:
        run: the folder of a run or of a sweep.
        file: PNG, SVG or PDF, by its suffix; by default `FIGURE.svg` in the folder.
        figure: of a run `curves` (the default), `inside` (after `inspect`) or `certificate` (after `certify`); of a
            sweep `comparison` (the default) or `seeds`.
        curve: the title of the only curve to draw, such as `Success`; all by default.

    Raises:
        UserError: it is neither, has nothing to draw yet, no such figure or curve, or the file cannot be written.
    """
    path = Path(run)
    return write_plot(path, None if file is None else Path(file), curve, figure)


def explain(agent: Agent | str | Path, *, stage: str, problem: str) -> Explanation:
    """One problem, token by token, beside the oracle's program.

    Raises:
        UserError: an unknown stage, a problem that is not of it, or a task that does not define `parse`.
    """
    agent = agent if isinstance(agent, Agent) else load(agent)
    task = agent.task
    require(isinstance(problem, str), "problem", problem, "its text, such as '3 7 2'")
    return explain_policy(agent.policy, task, task.parse(task.spec.stage_index(stage), problem))


def intervene(
    agent: Agent | str | Path,
    *,
    stage: str,
    problem: str,
    carrier: str,
    source: str,
    key: int,
    donor: str | None = None,
) -> SwitchedEpisode:
    """Play one problem with something removed or exchanged, beside the same episode undisturbed.

    Args:
        agent: an agent or a run folder.
        stage, problem: as they are typed.
        carrier: what is replaced, such as `hidden state`, `context`, `last token`, `feedback`, or the name of registers
            of the tools; a wrong one is refused with those that there are.
        source: by what: `donor` (what another problem's episode has there), `zero` or `mean` (hidden state), `blank`
            (last token, feedback), `start` (registers).
        key: before which action, from 1; 0 for every action.
        donor: the other problem, of the same stage.

    Raises:
        UserError: an unknown stage, carrier or source, a problem that is not of the stage, or an exchange that makes no
            sense there.

    Example:
        >>> import modelnative as mn
        >>> found = mn.intervene("runs/first", stage="T2", problem="4 7 2 4 5", carrier="hidden state", source="donor",
        ...                      key=5, donor="6 3 9 1 8")  # doctest: +SKIP
        >>> found.words()  # doctest: +SKIP
    """
    agent = agent if isinstance(agent, Agent) else load(agent)
    task, index = agent.task, agent.task.spec.stage_index(stage)
    other = None if donor is None else task.parse(index, donor)
    return switched(agent.policy, task, task.parse(index, problem), Switch(carrier, source, key), other)


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
