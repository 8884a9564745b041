"""What was really learned: evaluate, explain, certify."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from modelnative.api.training import Agent, load
from modelnative.errors import UserError, choose
from modelnative.evidence.certificate import Certificate
from modelnative.evidence.certify import certify as certify_task
from modelnative.evidence.evaluate import Evaluation, episodes
from modelnative.evidence.evaluate import evaluate as evaluate_policy
from modelnative.evidence.explain import Explanation
from modelnative.evidence.explain import explain as explain_policy
from modelnative.evidence.tutorial_comparison import TutorialComparison, compare_tutorial
from modelnative.runs.files import append_lines, begin_lines
from modelnative.tasks import make_task, require_task
from modelnative.tasks.contract.task import SPLITS, AnyTask, Split, require
from modelnative.training.rollout import Rollout


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
    choose("split", split, SPLITS)  # before a file is replaced
    for stage in stages or ():
        task.spec.stage_index(stage)
    on_rollout = None
    if episodes_file is not None:
        file = Path(episodes_file)
        begin_lines(file)

        def on_rollout(rollout: Rollout) -> None:
            append_lines(file, episodes(task, rollout))

    return evaluate_policy(
        agent.policy,
        task,
        stages=stages,
        split=split,
        generator=generator,
        progress=progress,
        on_rollout=on_rollout,
    )


def explain(agent: Agent | str | Path, *, stage: str, problem: str) -> Explanation:
    """One problem, token by token, beside the oracle's program.

    Raises:
        UserError: an unknown stage, or a problem that is not of it.
    """
    agent = agent if isinstance(agent, Agent) else load(agent)
    return explain_policy(agent.policy, agent.task, stage, problem)


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
    """Measure how far agents get on a task that should fail on it, whether its oracle always succeeds, and its faults.

    Args:
        task: a name, `package.module:Class`, or a task itself.
        stage: a stage's name, or several; all by default.
        options: of a task that is given by name.
        problems: stages with at most so many are counted whole; of others so many are drawn.
        seconds: of training a stage, shared by the memoryless network and the one that cannot see the problem.
        train: whether to train them.
        progress: is called with a line before everything that takes time.

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
    certificate = certify_task(made, stages=stages, problems=problems, seconds=seconds, train=train, progress=progress)
    return dataclasses.replace(certificate, task=name or certificate.task)


def tutorial(*, seed: int = 0, updates: int = 100) -> TutorialComparison:
    """Train the published tutorial's recipe and a corrected one; measure the published score and the success of both.

    Raises:
        UserError: `seed` or `updates` is not allowed.
    """
    return compare_tutorial(seed, updates)
