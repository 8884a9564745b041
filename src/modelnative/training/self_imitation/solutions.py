"""The best program found so far for each of many training problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from modelnative.tasks.contract.task import AnyTask, Problems, Split, program_length

MOST = 4096  # problems of a stage
NUMBERS = 1 << 24  # in all programs together, whatever the horizon
TOLD_APART = 8  # first tokens by which equally good programs are told apart
MISSES = 2  # failures in a row after which the policy counts as failing a problem
NOBODY, POLICY, SEARCH = range(3)  # who found a program


class Solutions(nn.Module):
    """A table of training problems and programs. The problems are drawn again from a seed; the programs are its state.

    It stays on the CPU, where the search is.

    Args:
        stages: S.
        horizon: most actions of a program.

    Attributes:
        programs: int16 [S, P, horizon], padded with the task's `end`.
        length: int16 [S, P], actions of each program; 0 where none is known.
        support: int16 [S, P], how many of a sample of the stage's problems the procedure behind each program solves.
        found_by: int8 [S, P], who solved each problem first: `NOBODY`, `POLICY` (by an episode of its own) or `SEARCH`.
        misses: int8 [S, P], how often in a row the policy failed when it tried the problem; `MISSES` before it tried.
        size: int64 [S], problems of each stage; P until `fill`.
        pools: for each stage the distinct problems, at most P; filled by `fill`.
    """

    programs: Tensor
    length: Tensor
    support: Tensor
    found_by: Tensor
    misses: Tensor
    size: Tensor

    def __init__(self, stages: int, horizon: int) -> None:
        super().__init__()
        each = max(1, min(MOST, NUMBERS // (stages * horizon)))
        self.register_buffer("programs", torch.zeros(stages, each, horizon, dtype=torch.int16))
        for name, dtype in (("length", torch.int16), ("support", torch.int16), ("found_by", torch.int8)):
            self.register_buffer(name, torch.zeros(stages, each, dtype=dtype))
        self.register_buffer("misses", torch.full((stages, each), MISSES, dtype=torch.int8))
        self.register_buffer("size", torch.full((stages,), each))
        self.pools: list[Problems] = []
        self._sorted: list[tuple[Tensor, Tensor]] = []  # the keys of each pool, and their rows

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        return self

    def fill(self, task: AnyTask, split: Split) -> None:
        """Draw the problems of every stage from `split`, if that is not done yet."""
        stages, each = self.length.shape
        for stage in range(len(self.pools), stages):
            generator = torch.Generator().manual_seed(stage)
            drawn: Problems = task.sample(torch.full((2 * each,), stage), generator, split)
            order = drawn.key.argsort(stable=True)
            key = drawn.key[order]
            new = torch.ones_like(key, dtype=torch.bool)
            new[1:] = key[1:] != key[:-1]
            pool = drawn[order[new].sort()[0][:each]]
            self.pools.append(pool)
            self.size[stage] = len(pool)
            self._sorted.append((pool.key.sort()[0], pool.key.argsort()))

    def rows(self, problems: Problems) -> Tensor:
        """Which row of its stage each problem is: int64 [n], -1 where it is none."""
        found = torch.full_like(problems.stage, -1)
        for stage, (keys, rows) in enumerate(self._sorted):
            here = (problems.stage == stage).nonzero()[:, 0]
            if len(here):
                wanted = problems.key[here]
                place = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
                found[here] = torch.where(keys[place] == wanted, rows[place], -1)
        return found

    def lookup(self, problems: Problems, end: int) -> Tensor:
        """The programs of some problems: int64 [n, horizon], only `end` where none is known."""
        rows = self.rows(problems)
        at = problems.stage, rows.clamp_min(0)
        known = (rows >= 0) & (self.length[at] > 0)
        return torch.where(known[:, None], self.programs[at].long(), end)

    def known(self, stage: int) -> Tensor:
        """Rows of a stage that have a program, int64 [m]."""
        return (self.length[stage, : self.size[stage]] > 0).nonzero()[:, 0]

    def unknown(self, stage: int) -> Tensor:
        """Rows of a stage that have none, int64 [m]."""
        return (self.length[stage, : self.size[stage]] == 0).nonzero()[:, 0]

    @property
    def failed(self) -> Tensor:
        """Which problems the policy fails, bool [S, P]. One failure is often the chance of a sampled action."""
        return self.misses >= MISSES

    def tried(self, stage: Tensor, rows: Tensor, success: Tensor) -> None:
        """The policy tried problems, int64 [n] each; bool [n], whether it succeeded."""
        self.misses[stage, rows] = torch.where(success, 0, (self.misses[stage, rows] + 1).clamp_max(MISSES)).to(
            torch.int8
        )

    def rates(self) -> tuple[Tensor, Tensor]:
        """Of each stage's problems, the share that has a program and the share that the policy fails: float [S]."""
        place = torch.arange(self.length.shape[1])
        return (self.length > 0).sum(1) / self.size, (self.failed & (place < self.size[:, None])).sum(1) / self.size

    def counts(self, stage: int) -> tuple[int, int, int]:
        """Problems of a stage; those that the policy solved first; those that the search solved first."""
        found_by = self.found_by[stage]
        return int(self.size[stage]), int((found_by == POLICY).sum()), int((found_by == SEARCH).sum())

    def store(self, stage: int, rows: Tensor, programs: Tensor, support: Tensor, end: int, found_by: int) -> None:
        """Keep successful programs that are better than those known.

        A program is better if the procedure behind it solves more problems, as one that solves few may succeed by
        coincidence; of equal ones the shorter is; of equally short ones always the same.

        Args:
            stage: index.
            rows: int64 [n], of the stage.
            programs: int64 [n, horizon], padded with `end`.
            support: int64 [n], see `Solutions`.
            end: of the task.
            found_by: `POLICY` or `SEARCH`.
        """
        length = program_length(programs, end)
        worth = self._worth(programs, support, length)
        order = worth.argsort(stable=True)  # of several for one problem the best is written last
        rows, programs, support, length, worth = (x[order] for x in (rows, programs, support, length, worth))
        last = torch.full((self.length.shape[1],), -1).scatter_reduce(0, rows, torch.arange(len(rows)), "amax")
        better = last[last >= 0]
        at = rows[better]
        before = self._worth(self.programs[stage, at].long(), self.support[stage, at], self.length[stage, at])
        better = better[(worth[better] > before) | (self.length[stage, at] == 0)]
        at = rows[better]
        self.programs[stage, at] = programs[better].short()
        self.length[stage, at] = length[better].short()
        self.support[stage, at] = support[better].short()
        first = self.found_by[stage, at] == NOBODY
        self.found_by[stage, at[first]] = found_by

    def _worth(self, programs: Tensor, support: Tensor, length: Tensor) -> Tensor:
        """How good programs are: float64 [n]."""
        horizon = programs.shape[1]
        # Like problems should have like programs: of equal ones those are taken whose first tokens have small numbers.
        weight = 2.0 ** (-15 - 5 * torch.arange(TOLD_APART, dtype=torch.float64))
        first = (programs[:, :TOLD_APART] * weight[:horizon]).sum(1)
        return support.double() * (horizon + 1) + horizon - length - first
