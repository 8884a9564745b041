"""The procedures that solve some problems, and which of them are edited next."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.training.discovery.procedures import first_of_each, lengths, row_hash

ISLANDS = 8  # from which parents are drawn
MOST = 20_000  # procedures that are kept


class Population:
    """Procedures in islands: those of an island solve the same problems.

    What solves problems that others do not is kept, however few they are: a procedure that works for special operands
    only can be a step on the way to one that works for all (cf. lexicase selection, Helmuth et al., 2015; MAP-Elites,
    Mouret and Clune, 2015).

    Args:
        horizon: of the task.
        generator: all chance comes from it.

    Attributes:
        procedures: int64 [p, horizon].
        island: int64 [p], a hash of which problems each solves.
        solved: int64 [p], how many.
        visits: float [p], how often each was a parent.
        home: island of the procedures that solved the stage before; half of the parents come from there.
    """

    def __init__(self, horizon: int, generator: torch.Generator) -> None:
        self.generator = generator
        self.procedures = torch.empty(0, horizon, dtype=torch.int64)
        self.island, self.solved = (torch.empty(0, dtype=torch.int64) for _ in range(2))
        self.visits = torch.empty(0)
        self.home: Tensor | None = None

    def __len__(self) -> int:
        return len(self.procedures)

    def add(self, procedures: Tensor, success: Tensor) -> None:
        """Add those that solve any problem: int64 [n, horizon], bool [n, K]."""
        rows = success.any(1).nonzero()[:, 0]
        procedures, success = procedures[rows], success[rows]
        new = (procedures, row_hash(success.long()), success.sum(1), torch.zeros(len(rows)))
        if self.home is None and len(rows):
            self.home = new[1][:1]
        columns = [torch.cat(pair) for pair in zip(self._columns(), new, strict=True)]
        self._set(columns, first_of_each(row_hash(columns[0])))

    def parents(self, n: int, at_home: bool) -> tuple[Tensor, Tensor]:
        """Procedures to edit, and others whose pieces may be put in: int64 [n, horizon] each.

        The best islands come first; within one the least visited and the shortest. With `at_home`, half of them come
        from the home island.
        """
        islands, member = self.island.unique(return_inverse=True)
        best = torch.zeros(len(islands), dtype=torch.int64).scatter_reduce(0, member, self.solved, "amax")
        top = best.argsort(descending=True, stable=True)[:ISLANDS]
        share = torch.zeros(len(islands)).index_put((top,), 0.7 ** torch.arange(len(top)).float())
        share /= share.sum()
        if at_home and self.home is not None:
            home = torch.isin(islands, self.home).float()
            share = 0.5 * share + 0.5 * home / home.sum().clamp_min(1) if bool(home.any()) else share
        fresh = 0.8 ** lengths(self.procedures).float() / (1 + self.visits)
        total = torch.zeros(len(islands)).index_add(0, member, fresh)
        weight = share[member] * fresh / total[member]
        rows, others = (torch.multinomial(weight, n, replacement=True, generator=self.generator) for _ in range(2))
        self.visits.index_add_(0, rows, torch.ones(n))
        chosen = self.procedures[rows], self.procedures[others]
        if len(self) > MOST:
            self._set(self._columns(), weight.argsort(descending=True, stable=True)[: MOST // 2].sort()[0])
        return chosen

    def _columns(self) -> list[Tensor]:
        return [self.procedures, self.island, self.solved, self.visits]

    def _set(self, columns: list[Tensor], rows: Tensor) -> None:
        self.procedures, self.island, self.solved, self.visits = (column[rows] for column in columns)
