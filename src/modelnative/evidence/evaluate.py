"""Evaluation: play every problem of a task, or a sample where there are too many to list, and count successes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import TypeAdapter

from modelnative.errors import choose
from modelnative.evidence.notebook import html_table
from modelnative.evidence.problem_set import ProblemSet
from modelnative.evidence.statistics import wilson
from modelnative.policies.contract import Policy
from modelnative.tasks.contract.task import SPLITS, AnyTask, Problems, Split, require
from modelnative.training.parallel import Pool, cores
from modelnative.training.rollout import Plan, Rollout, play

LISTED = 150_000  # stages and splits with at most so many problems are played completely
DRAWN = 10_000  # at most so many are sampled from larger or endless ones, always the same


@dataclass(frozen=True)
class Count:
    """Successes among the problems of one stage and split: all of them, or a sample if not `whole`.

    Attributes:
        stage, split, successes, problems, whole: as above.
        mean_return: the mean sum of an episode's rewards; None where it was not measured.
    """

    stage: str
    split: str
    successes: int
    problems: int
    whole: bool = True
    mean_return: float | None = None

    @property
    def rate(self) -> float | None:
        """Successes divided by problems; None for an empty split."""
        return self.successes / self.problems if self.problems else None


@dataclass(frozen=True)
class Reference:
    """What another agent reaches on all problems of a stage.

    Attributes:
        rate: its success.
        best: whether no agent of its kind does better; if not, the rate is a lower bound.
        interval: the 95% Wilson interval; None where the rate is exact.
    """

    rate: float
    best: bool = True
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Evaluation:
    """The successes of a policy, counted for each stage and split.

    Attributes:
        counts, greedy: as above.
        floors: by stage and agent, as `certify` names them, what the oracle and agents that should fail reach.
    """

    counts: tuple[Count, ...]
    greedy: bool
    floors: dict[str, dict[str, Reference]] = field(default_factory=dict)

    @property
    def perfect(self) -> bool:
        """Whether every problem that was played was solved."""
        return self.reaches(1.0)

    def reaches(self, rate: float) -> bool:
        """Whether every listed problem was solved, and of the sampled problems of each stage at least this share."""
        return all(c.successes >= c.problems * (1.0 if c.whole else rate) for c in self.counts)

    def total(self, stage: str | None = None, split: str | None = None) -> Count:
        """The sum of the counts of a stage, of a split, or of all."""
        chosen = [c for c in self.counts if stage in (None, c.stage) and split in (None, c.split)]
        successes, problems = sum(c.successes for c in chosen), sum(c.problems for c in chosen)
        measured = [c for c in chosen if c.problems and c.mean_return is not None]
        played = sum(c.problems for c in measured)
        returns = sum(c.problems * (c.mean_return or 0.0) for c in measured) / played if played else None
        return Count(stage or "all", split or "all", successes, problems, all(c.whole for c in chosen), returns)

    def line(self) -> str:
        """The result in one line; with the mean return where it is not the success rate.

        Example:
            >>> Evaluation((Count("T0", "train", 3, 4), Count("T0", "heldout", 1, 1)), greedy=True).line()
            'T0=0.800 (4/5 problems)'
        """
        stages = list(dict.fromkeys(count.stage for count in self.counts))
        whole = self.total()
        rates = " ".join(f"{stage}={floor(self.total(stage).rate)}{self._return(stage)}" for stage in stages)
        return f"{rates} ({whole.successes}/{whole.problems} problems{'' if whole.whole else ', some drawn'})"

    def _return(self, stage: str) -> str:
        """The mean return of a stage in words; empty where it says no more than the success rate."""
        total = self.total(stage)
        if total.mean_return is None or total.rate is None or abs(total.mean_return - total.rate) < 1e-6:
            return ""
        return f" (return {total.mean_return:.4g})"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = [{**vars(count), "rate": count.rate} for count in self.counts]
        found = {"greedy": self.greedy, "perfect": self.perfect, "counts": counts, "line": self.line()}
        floors = {stage: {name: vars(r) for name, r in agents.items()} for stage, agents in self.floors.items()}
        return {**found, "floors": floors} if floors else found

    def _repr_html_(self) -> str:
        rows = []
        for count in self.counts:
            exact = self.greedy and count.whole
            bounds = interval(*wilson(count.successes, count.problems)) if count.problems and not exact else "exact"
            rows.append([count.stage, count.split, f"{count.successes}/{count.problems}", floor(count.rate), bounds])
        head = ["stage", "split", "solved", "success", "95% Wilson"]
        return html_table("greedy" if self.greedy else "sampled at temperature 1", head, rows, [self.line()])

    @classmethod
    def of(cls, values: dict[str, Any]) -> Evaluation:
        """The inverse of `as_dict`; raises a `ValueError` for anything else."""
        return TypeAdapter(cls).validate_python(values)


def floor(rate: float | None) -> str:
    """Three decimals, rounded down, so that only a perfect rate is shown as 1.000; a dash for no rate."""
    return "–" if rate is None else f"{int(rate * 1000 + 1e-9) / 1000:.3f}"


def interval(low: float, high: float) -> str:
    """An interval with three decimals, rounded outwards, so that it holds the rate as `floor` shows it.

    Example:
        >>> interval(0.9968, 0.9979)
        '[0.996, 0.998]'
    """
    return f"[{floor(low)}, {math.ceil(high * 1000 - 1e-9) / 1000:.3f}]"


def evaluate(
    policy: Policy,
    task: AnyTask,
    *,
    stages: Sequence[str] | None = None,
    split: Split = "all",
    generator: torch.Generator | None = None,
    progress: Callable[[str], None] | None = None,
    on_rollout: Callable[[Rollout], None] | None = None,
) -> Evaluation:
    """Play every problem of some stages once and count successes.

    Of a stage and split with more than `LISTED` problems, or of a task that cannot enumerate its problems,
    `Task.evaluation_size` problems are played, 10,000 at most.

    Args:
        policy: the policy that plays, greedily unless a generator is given.
        task: the task that it plays.
        stages: names of stages; all by default.
        split: `train`, `heldout`, or `all`, which counts both splits separately.
        generator: samples the actions from the policy at temperature 1.
        progress: called with one line before each stage and split.
        on_rollout: called with every rollout, for example to write episodes.

    Raises:
        UserError: a stage or split is unknown.
    """
    parts = stages_and_splits(task, stages, split)
    device = next(policy.parameters()).device
    counts = []
    pool = Pool(cores())

    def planned(problem_set: ProblemSet) -> Iterator[tuple[Problems, Plan | None]]:
        for chunk in problem_set.chunks():
            chunk = chunk.to(device)
            yield chunk, None if generator is None else Plan.sampled(chunk, task.spec.horizon, generator)

    for name, part in parts:
        problem_set = ProblemSet.of(task, task.spec.stage_index(name), part, LISTED, min(DRAWN, task.evaluation_size))
        if progress is not None:
            progress(f"{name}, {part}: {problem_set.count:,} problems{'' if problem_set.listed else ', drawn'}")
        successes = problems = 0
        returns = 0.0
        work = planned(problem_set)
        for rollout in pool.stream(lambda chunk: play(policy, task, *chunk, final=on_rollout is not None), work):
            successes += int(rollout.success.sum())
            returns += float(rollout.reward.double().sum())
            problems += len(rollout.success)
            if on_rollout is not None:
                on_rollout(rollout)
        counts.append(Count(name, part, successes, problems, problem_set.listed, returns / max(problems, 1)))
    return Evaluation(tuple(counts), generator is None)


def stages_and_splits(task: AnyTask, stages: Sequence[str] | None, split: Split) -> list[tuple[str, Split]]:
    """What `evaluate` plays, in order.

    Raises:
        UserError: a stage or split is unknown, or a stage is named twice.
    """
    choose("split", split, SPLITS)
    names = list(task.spec.stages if stages is None else stages)
    for name in names:
        task.spec.stage_index(name)
    require(len(set(names)) == len(names), "stages", " ".join(names), "each stage once")
    parts: tuple[Split, ...] = ("train", "heldout") if split == "all" else (split,)
    return list(itertools.product(names, parts))


def episodes(task: AnyTask, rollout: Rollout) -> list[dict[str, Any]]:
    """A JSON-ready record of every episode: stage, problem, actions, answer, target and success.

    The actions end with the one that ended the episode, so that the episode can be replayed.
    """
    assert rollout.final is not None, "played without `final`"
    names, stages = task.spec.vocabulary, task.spec.stages
    records = task.records(rollout.problems, rollout.final)
    columns = (rollout.problems.stage, rollout.action.T, rollout.length, rollout.success)
    lines = []
    for record, stage, actions, length, success in zip(records, *(c.tolist() for c in columns), strict=True):
        verdict = {"answer": record.pop("answer"), "target": record.pop("target"), "success": success}
        played = [names[token] for token in actions[:length]]
        lines.append({"stage": stages[stage], **record, "actions": played, **verdict})
    return lines
