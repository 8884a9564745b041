"""The search for programs of the problems of a stage, in turns."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask
from modelnative.training.discovery.edits import symbol_weights
from modelnative.training.discovery.procedures import Machines, write_programs
from modelnative.training.self_imitation.likeness import SAMPLE, SURE, Likeness
from modelnative.training.self_imitation.solutions import POLICY, SEARCH, Solutions
from modelnative.training.self_imitation.variation import lift, play_varied

EPISODES = 2048  # that are varied in a turn
WINNERS, BETTER = 32, 8  # procedures of a turn that are tried on more problems: for unsolved ones, for others
TARGETS = 1024  # of those that are alike, at most on how many
OWN = 32  # of the policy's successes in an update that are looked at


class ProblemSearch:
    """Looks for programs of one stage's problems, and keeps them in the table.

    Args:
        task: answers.
        table: whose pools are filled.
        stage: index.
    """

    def __init__(self, task: AnyTask, table: Solutions, stage: int) -> None:
        self.task, self.table, self.stage, self.pool = task, table, stage, table.pools[stage]
        self.varied = 0
        self.machines = Machines(task, False, lambda function, parts: list(map(function, parts)))
        self.weights = symbol_weights(task, self.pool, False)
        self.likeness = Likeness(task, table.others[stage])

    def turn(self, generator: torch.Generator) -> int:
        """Vary programs of this stage and of the one before, on problems of this stage; returns the actions played."""
        before = self.steps
        targets = self._targets(EPISODES, generator)
        played = play_varied(self.task, self._parents(generator), self.pool[targets], self.weights, generator)
        self.varied += played.steps
        order = torch.randperm(len(played.rows), generator=generator)
        rows, procedures = targets[played.rows][order], played.procedures[order]
        new = self.table.length[self.stage, rows] == 0
        chosen = torch.cat([new.nonzero()[:WINNERS, 0], (~new).nonzero()[:BETTER, 0]])
        rows, procedures = rows[chosen], procedures[chosen]
        # What was drawn as a token and stands in the problem may as well have been copied.
        programs, context = played.programs[order][chosen], self.pool[rows].context
        copies = lift(self.task, programs, context, self.weights, generator)
        self._spread(rows, torch.where(procedures < len(self.task.spec.vocabulary), copies, procedures))
        return self.steps - before

    def offer(self, rows: Tensor, programs: Tensor, generator: torch.Generator) -> int:
        """Keep programs with which the policy succeeded, int64 [n] and [n, horizon]; returns the actions played."""
        before = self.steps
        known = self.table.length[self.stage, rows].long()
        news = (known == 0) | ((programs != self.task.spec.end).sum(1) < known)
        chosen = news.nonzero()[:, 0]
        chosen = chosen[torch.randperm(len(chosen), generator=generator)[:OWN]]
        if len(chosen):
            rows, programs = rows[chosen], programs[chosen]
            procedures = lift(self.task, programs, self.pool[rows].context, self.weights, generator)
            support, coincidence = self.likeness.support(procedures, self.pool[rows])
            kept = ~coincidence
            self._store(rows[kept], programs[kept], support[kept], POLICY)
        return self.steps - before

    @property
    def steps(self) -> int:
        """Actions that were played so far."""
        return self.varied + self.machines.steps + self.likeness.steps

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
            weight = (1.0 + SAMPLE / SURE * table.support[stage, rows].float()) ** -0.5
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

    def _spread(self, rows: Tensor, procedures: Tensor) -> None:
        """Keep procedures that solved problems, unless by coincidence, for all problems alike that they solve better.

        Args:
            rows: int64 [n], of the problems.
            procedures: int64 [n, horizon].
        """
        support, coincidence = self.likeness.support(procedures, self.pool[rows])
        pool, stored = len(self.pool), self.table.support[self.stage]
        for i in (~coincidence).nonzero()[:, 0].tolist():
            others = self.likeness.others(procedures[i], self.pool[rows[i : i + 1]])
            others = others[others < pool]
            worse = (self.table.length[self.stage, others] == 0) | (stored[others] < support[i])
            targets = torch.cat([rows[i : i + 1], others[worse][:TARGETS]])
            success, _ = self.machines.play(procedures[i : i + 1], self.pool[targets])
            solved = targets[success[0]]
            programs, _ = write_programs(self.task, procedures[i].expand(len(solved), -1), self.pool[solved])
            self._store(solved, programs, support[i].expand(len(solved)), SEARCH)

    def _store(self, rows: Tensor, programs: Tensor, support: Tensor, found_by: int) -> None:
        self.table.store(self.stage, rows, programs, support, self.task.spec.end, found_by)
