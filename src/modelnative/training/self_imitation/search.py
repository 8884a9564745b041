"""The search for programs of the problems of a stage, in turns."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask
from modelnative.training.discovery.edits import symbol_weights
from modelnative.training.discovery.procedures import Machines, distinct, write_programs
from modelnative.training.self_imitation.solutions import POLICY, SEARCH, Solutions
from modelnative.training.self_imitation.variation import lift, play_varied

EPISODES = 2048  # that are varied in a turn
SAMPLE = 128  # problems on which the support of a procedure is measured
WINNERS = 8  # procedures of a turn that are tried on more problems
TARGETS = 1024  # at most on how many that nothing solves; and on a sample of any
OWN = 16  # of the policy's successes in an update that are looked at


class ProblemSearch:
    """Looks for programs of one stage's problems, and keeps them in the table.

    Args:
        task: answers.
        table: whose pools are filled.
        stage: index.
    """

    def __init__(self, task: AnyTask, table: Solutions, stage: int) -> None:
        self.task, self.table, self.stage, self.pool = task, table, stage, table.pools[stage]
        self.machines = Machines(task, False, lambda function, parts: list(map(function, parts)))
        self.weights = symbol_weights(task, self.pool, False)

    def turn(self, generator: torch.Generator) -> int:
        """Vary programs of this stage and of the one before, on problems of this stage; returns the actions played."""
        before = self.machines.steps
        targets = self._targets(EPISODES, generator)
        played = play_varied(self.task, self._parents(generator), self.pool[targets], self.weights, generator)
        self.machines.steps += played.steps
        order = torch.randperm(len(played.rows), generator=generator)
        rows, procedures = targets[played.rows][order], played.procedures[order]
        new = self.table.length[self.stage, rows] == 0
        others = torch.randint(len(self.pool), (SAMPLE,), generator=generator)
        targets = torch.cat([self.table.unknown(self.stage)[:TARGETS], others]).unique()
        self._spread(distinct(procedures[new])[:WINNERS], targets)
        self._spread(procedures[~new][:WINNERS], rows[~new][:WINNERS].unique())
        return self.machines.steps - before

    def offer(self, rows: Tensor, programs: Tensor, generator: torch.Generator) -> int:
        """Keep programs with which the policy succeeded, int64 [n] and [n, horizon]; returns the actions played."""
        before = self.machines.steps
        known = self.table.length[self.stage, rows].long()
        news = (known == 0) | ((programs != self.task.spec.end).sum(1) < known)
        chosen = news.nonzero()[:, 0]
        chosen = chosen[torch.randperm(len(chosen), generator=generator)[:OWN]]
        if len(chosen):
            rows, programs = rows[chosen], programs[chosen]
            procedures = lift(self.task, programs, self.pool[rows].context, self.weights, generator)
            self._store(rows, programs, self._support(procedures), POLICY)
        return self.machines.steps - before

    def _parents(self, generator: torch.Generator) -> Tensor:
        """Procedures to vary, int64 [EPISODES, horizon]: three in four of this stage, the others of the one before."""
        table, none = self.table, torch.full((EPISODES, self.task.spec.horizon), -1)
        sources = [(stage, table.known(stage)) for stage in (self.stage, self.stage - 1) if stage >= 0]
        sources = [(stage, rows) for stage, rows in sources if len(rows)]
        if not sources:
            return none
        parts = []
        for size, (stage, rows) in zip((EPISODES - EPISODES // 4, EPISODES // 4), sources, strict=False):
            if len(sources) == 1:
                size = EPISODES
            # Procedures that many problems share are drawn more often than others, but less than that many times.
            weight = (1.0 + table.support[stage, rows].float()) ** -0.5
            rows = rows[torch.multinomial(weight, size, replacement=True, generator=generator)]
            programs, context = table.programs[stage, rows].long(), table.pools[stage][rows].context
            parts.append(lift(self.task, programs, context, self.weights, generator))
        return torch.cat(parts)[torch.randperm(EPISODES, generator=generator)]

    def _targets(self, n: int, generator: torch.Generator) -> Tensor:
        """Problems that have no program yet, and one in four any: int64 [n]."""
        unknown, size = self.table.unknown(self.stage), len(self.pool)
        any_of_them = torch.randint(size, (n,), generator=generator)
        if not len(unknown):
            return any_of_them
        chosen = unknown[torch.randint(len(unknown), (n,), generator=generator)]
        return torch.where(torch.rand(n, generator=generator) < 0.25, any_of_them, chosen)

    def _spread(self, procedures: Tensor, targets: Tensor) -> None:
        """Keep procedures for all of some problems (rows, int64 [m]) that they solve."""
        if not len(procedures) or not len(targets):
            return
        support = self._support(procedures)
        success, _ = self.machines.play(procedures, self.pool[targets])
        best, which = torch.where(success, support[:, None] + 1, 0).max(0)
        solved = (best > 0).nonzero()[:, 0]
        programs, right = write_programs(self.task, procedures[which[solved]], self.pool[targets[solved]])
        rows = solved[right]
        self._store(targets[rows], programs[right], support[which[rows]], SEARCH)

    def _support(self, procedures: Tensor) -> Tensor:
        """How many of a sample of the problems each procedure solves: int64 [n]."""
        return self.machines.play(procedures, self.pool[:SAMPLE])[0].sum(1)

    def _store(self, rows: Tensor, programs: Tensor, support: Tensor, found_by: int) -> None:
        self.table.store(self.stage, rows, programs, support, self.task.spec.end, found_by)
