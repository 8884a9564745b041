"""Runs in groups: the same training with several seeds, on one task or more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelnative.errors import UserError, choose, require
from modelnative.policies.config_model import dotted
from modelnative.runs.result import COSTS, Result
from modelnative.runs.run import Run
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.results import text
from modelnative.sweeps.spec import Fields

METRICS = ("success", "heldout", "sampled", *COSTS)
RATES = METRICS[:3]  # in these, more is better
# What does not change what is trained.
APART = (
    "seed",
    "task",
    "threads",
    "device",
    "updates",
    "minutes",
    "checkpoint_every",
    "keep_checkpoints",
    "log",
    "alarms",
)


@dataclass
class Group:
    """Trainings that differ in their seed and task only.

    Attributes:
        label: what sets them apart from the other groups.
        scores: by task, the score of each training that has a result.
        seeds: by task, the seed of each training.
        unsolved: trainings that ended without solving every problem.
        failed: trainings without a result.
    """

    label: str
    scores: dict[str, list[float]] = field(default_factory=dict)
    seeds: dict[str, list[int]] = field(default_factory=dict)
    unsolved: int = 0
    failed: int = 0

    def strata(self, tasks: Sequence[str]) -> list[list[float]]:
        """The scores on these tasks."""
        return [self.scores[task] for task in tasks]


def read_groups(paths: Sequence[Path], metric: str = "success", stage: str | None = None) -> list[Group]:
    """The groups that runs, sweeps and folders of `train --seeds` make, in the order in which they are named.

    Runs whose configuration differs in a field, on the same task, are in different groups. So are runs of different
    folders, where a folder of several runs is named beside other folders.

    Args:
        paths: their folders.
        metric: `success` (of the greedy policy over all problems, the mean over stages), `heldout` (over the held-out
            ones), `sampled` (with sampled actions), or a cost: `updates`, `episodes`, `steps`, `seconds`.
        stage: count this stage alone; costs have no stages.

    Raises:
        UserError: a folder is neither, or holds no finished run; a group has a seed twice; a stage is unknown.
    """
    choose("metric", metric, METRICS)
    require(stage is None or metric in RATES, "stage", stage, f"none for {metric}, which is of the whole training")
    require(len(paths) > 0, "runs", [], "one folder or more")
    found = [(source, run) for path in paths for source, run in _runs(path, len(paths) > 1)]
    varying = _varying([run for _, run in found])
    groups: dict[str, Group] = {}
    for source, run in found:
        fields = {name: value for name, value in _fields(run).items() if name in varying}
        parts = [source, *(f"{name}={text(value)}" for name, value in fields.items())]
        label = " ".join(filter(None, parts)) or "all runs"
        _add(groups.setdefault(label, Group(label)), run, metric, stage)
    for group in groups.values():
        require(bool(group.scores), "runs", group.label, "at least one finished run in every group")
    return list(groups.values())


def _runs(path: Path, several: bool) -> list[tuple[str, Run]]:
    """The runs in a folder, each with the name of the folder if that sets them apart."""
    if not Sweep.exists(path):
        return [("", Run.open(path))]
    sweep = Sweep.open(path)
    return [(str(path) if several else "", sweep.run(trial)) for trial in sweep.trials]


def _fields(run: Run) -> Fields:
    """What a run trains with, by dotted name."""
    return dotted({name: value for name, value in run.config.model_dump().items() if name not in APART})


def _varying(runs: Sequence[Run]) -> set[str]:
    """The fields that differ between runs of the same task; a field that differs between tasks belongs to the task."""
    seen: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for name, value in _fields(run).items():
            seen.setdefault((run.config.task, name), set()).add(json.dumps(value, sort_keys=True))
    return {name for (_, name), values in seen.items() if len(values) > 1}


def _add(group: Group, run: Run, metric: str, stage: str | None) -> None:
    """Add a run to a group."""
    task, seed = run.config.task, run.config.seed
    seeds = group.seeds.setdefault(task, [])
    if seed in seeds:
        raise UserError(f"runs: seed {seed} of {task} is twice in the group {group.label!r}; name each run once")
    seeds.append(seed)
    if not run.result_path.exists():
        group.failed += 1
        return
    result = run.result()
    group.scores.setdefault(task, []).append(_score(result, metric, stage))
    group.unsolved += not result.evaluation.perfect


def _score(result: Result, metric: str, stage: str | None) -> float:
    if metric in COSTS:
        return float(result.costs[metric])
    evaluation = result.sampled if metric == "sampled" else result.evaluation
    stages = list(dict.fromkeys(count.stage for count in evaluation.counts))
    chosen = stages if stage is None else [choose("stage", stage, stages)]
    rates = [evaluation.total(each, "heldout" if metric == "heldout" else None).rate for each in chosen]
    known = [rate for rate in rates if rate is not None]
    require(
        bool(known), "metric", metric, f"one that these runs have; no stage of {', '.join(chosen)} has such problems"
    )
    return sum(known) / len(known)
