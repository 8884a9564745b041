"""The search for the procedures that solve the stages of a task."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, Problems, Split
from modelnative.training.discovery.cover import POOL, Cover
from modelnative.training.discovery.procedures import Machines, Map, copies_feedback
from modelnative.training.discovery.stage_search import JUDGES, PROBES, StageSearch

A = TypeVar("A")

SINGLE = 0.25  # share of the budget that is spent on one procedure for all problems before several are looked for,
STALE = 64  # unless so many generations bring no better one
EXPLORED = 0.3  # share of the budget with which sequences are explored for several procedures
EXTRA = 5  # the fewest generations in which a shorter procedure is looked for after the first
KEPT = 2  # procedures of a stage from which the next stage is searched, where each solves all
LEAST = 1 << 16  # actions that every generation counts as, so that a search which finds nothing new ends too
TURN = 16  # generations of the first turn of a search


@dataclass
class Finding:
    """Where the search for a stage stands.

    Attributes:
        stage: its index.
        procedures: int64 [k, horizon], the best so far: each solves every problem tried, the shortest first; or all
            together do, the one that solves most first. None if nothing solves a problem.
        solved: share of the problems tried that are solved by the first of them; by all of them if `several`.
        steps: actions that were played for this stage.
        found: whether they solve enough of the problems tried: all by one, or 99% by several.
        several: whether no single one does.
        ended: whether the search goes no further.
    """

    stage: int
    procedures: Tensor
    solved: float
    steps: int
    found: bool
    several: bool = False
    ended: bool = False


def search_stages(
    task: AnyTask,
    stages: range,
    known: Tensor,
    seed: int,
    budget: int,
    map_parts: Map,
    split: Split = "train",
    several: bool = False,
) -> Iterator[Finding]:
    """Search stage after stage, each from the procedures of the one before, until one is not found.

    Two searches take turns at a stage: one for procedures that copy from the problem alone, and one for procedures that
    also copy feedback. Where those of the stage before copy feedback, the second is alone.

    Args:
        task: whose tools are used.
        stages: their indices.
        known: int64 [k, horizon], procedures that solve the stage before the first of `stages`; none for the first.
        seed: of all chance. What is found for a stage depends on it and on `known` alone.
        budget: the most actions to play for a stage; a generation counts as at least `LEAST`.
        map_parts: applies a function to parts of the work.
        split: the problems to search on.
        several: whether several procedures that solve a stage together are looked for where no single one is found
            with a quarter of the budget. After a stage that needs several, those of the next are looked for at once.

    Yields:
        Where the search stands, after every generation.
    """
    for stage in stages:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + stage)
        feedback = [True] if copies_feedback(task, known) else [False, *[True] * bool(task.spec.feedback_width)]
        machines = [Machines(task, copy_feedback, map_parts) for copy_feedback in feedback]
        search = _Search(task, stage, known, generator, machines, split)
        for_all = search.for_all(0 if stage == stages[-1] else EXTRA)
        phases = [(for_all, SINGLE * budget, STALE), (search.for_some(EXPLORED * budget), budget, budget)]
        phases = phases[len(known) > KEPT :] if several else [(for_all, budget, budget)]
        spent, before, found = 0, 0, False
        for findings, limit, patience in phases:
            best, stale = 0.0, 0
            for procedures, solved, found in findings:
                steps = sum(each.steps for each in machines)
                spent, before = spent + max(LEAST, steps - before), steps
                best, stale = (solved, 0) if solved > best else (best, stale + 1)
                together = several and limit == budget and len(procedures) > 1
                yield Finding(stage, procedures, solved, steps, found, together, found or spent > budget)
                if found or spent > limit or stale > patience:
                    break
            if found:
                break
        if not found:
            return
        known = procedures


@dataclass
class _Search:
    """The two ways to search one stage; see `search_stages`."""

    task: AnyTask
    stage: int
    known: Tensor
    generator: torch.Generator
    machines: list[Machines]
    split: Split

    def draw(self, n: int) -> Problems:
        problems: Problems = self.task.sample(torch.full((n,), self.stage), self.generator, self.split)
        return problems

    def for_all(self, extra: int) -> Iterator[tuple[Tensor, float, bool]]:
        """The best procedures, their share and whether they are found, after each generation."""
        searches = [
            StageSearch(each, self.draw(PROBES), self.draw(JUDGES), self.known, self.generator, extra)
            for each in self.machines
        ]
        for search in _turns(searches):
            search.generation()
            best, solved = search.best()
            yield best[:KEPT], solved, search.finished

    def for_some(self, exploration: float) -> Iterator[tuple[Tensor, float, bool]]:
        """The same of several procedures together."""
        pool = self.draw(POOL)
        covers = [Cover(each, pool, self.known, self.generator) for each in self.machines]
        for cover, generations in _turns([(each, each.generations(exploration / len(covers))) for each in covers]):
            next(generations, None)
            yield cover.procedures, cover.solved, cover.complete


def _turns(searches: list[A]) -> Iterator[A]:
    """Each in turn, for `TURN` generations, then twice as many, and so on."""
    for turn in itertools.count():
        for search in searches:
            yield from itertools.repeat(search, TURN << turn)
