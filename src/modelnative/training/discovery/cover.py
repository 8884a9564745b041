"""The search for a few procedures that together solve a stage, where no single one does."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from modelnative.tasks.contract.task import Problems
from modelnative.training.discovery.edits import Editor, symbol_weights
from modelnative.training.discovery.macros import Level, explore
from modelnative.training.discovery.procedures import Machines, distinct, lengths
from modelnative.training.discovery.stage_search import JUDGES, PROBES, StageSearch

POOL = 1024  # problems that are to be solved
ENOUGH = 0.99  # share of them that must be solved
LEAST = 0.03  # share of the problems still unsolved that a procedure must solve to be taken
STALE = 5  # generations without a better procedure after which the best is taken
MOST = 64  # procedures of a stage


class Cover:
    """Procedures, and which problems of a stage each of them solves.

    At first, sequences of symbols are explored breadth first. Then one search after another looks for a procedure that
    solves many of the problems which no procedure solves yet. Each begins with what the ones before have found.

    Args:
        machines: play the procedures.
        pool: `POOL` problems of one stage.
        known: int64 [k, horizon], procedures of the stage before; none for the first.
        generator: all chance comes from it.
    """

    def __init__(self, machines: Machines, pool: Problems, known: Tensor, generator: torch.Generator) -> None:
        self.machines, self.pool, self.known, self.generator = machines, pool, known, generator
        self.procedures, self.success = known[:0], torch.zeros(0, len(pool), dtype=torch.bool)

    @property
    def solved(self) -> float:
        """Share of the pool that the procedures solve together."""
        return float(self.success.any(0).float().mean())

    @property
    def complete(self) -> bool:
        """Whether that is enough."""
        return self.solved >= ENOUGH

    def generations(self, exploration: float) -> Iterator[None]:
        """Search until the cover is complete or full.

        Args:
            exploration: how many actions may be played before the first search.

        Yields:
            After each length of sequences that is explored, and after each generation of a search.
        """
        task, begun, levels = self.machines.task, self.machines.steps, list[Level]()
        weights = symbol_weights(task, self.pool, self.machines.copy_feedback)
        editor = Editor(weights, task.spec.horizon, self.generator)
        for level in explore(self.machines, editor, self.pool[:PROBES], some=True):
            levels.append(level)
            yield
            if self.machines.steps - begun > exploration:
                break
        found = torch.cat([self.known, *(level.winners for level in levels)])
        while not self.complete and len(self.procedures) < MOST:
            rows = (~self.success.any(0)).nonzero()[:, 0]
            unsolved = self.pool[rows[torch.randperm(len(rows), generator=self.generator)]]
            probes, judges = unsolved[:PROBES], unsolved[:JUDGES]
            start = torch.cat([self.procedures, self.known])
            search = StageSearch(self.machines, probes, judges, start, self.generator, 0, levels)
            search.candidates = distinct(torch.cat([search.candidates, found]))
            yield from self._one(search)
            found = search.population.procedures

    def _one(self, search: StageSearch) -> Iterator[None]:
        """Search until a procedure is good enough, and add it."""
        best, share, stale = self.known[:0], 0.0, 0
        while not len(search.right) and (stale < STALE or share < LEAST):
            search.generation()
            yield
            solved = search.population.solved
            top = search.population.procedures[solved.argsort(descending=True, stable=True)[:16]]
            rate = search.machines.rate(top, search.judges)
            stale += 1
            if len(top) and float(rate.max()) > share:
                best, share, stale = top[rate.argmax()], float(rate.max()), 0
        best = search.right[0] if len(search.right) else best
        success = self.machines.play(best[None], search.judges)[0][0]
        self._add(search.shortest(best, search.judges[success.nonzero()[:, 0]]))

    def _add(self, procedure: Tensor) -> None:
        """Add a procedure; drop those that are not needed any more, and put those that solve most first."""
        procedures = torch.cat([self.procedures, procedure[None]])
        success = torch.cat([self.success, self.machines.play(procedure[None], self.pool)[0]])
        order = (success.sum(1) - lengths(procedures) / 1000).argsort(descending=True, stable=True)
        kept, solved = list[int](), torch.zeros(len(self.pool), dtype=torch.bool)
        for row in order.tolist():
            if bool((success[row] & ~solved).any()):
                kept.append(row)
                solved |= success[row]
        self.procedures, self.success = procedures[kept], success[kept]
