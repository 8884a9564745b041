"""Helpers for `Task.sample` and `Task.enumerate`: tables of problems, draws within a split by rejection, and keys."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.task import P, S, Split, Task, in_split, mixed

TRIES = 1000  # redraws before a split counts as empty; one problem in five is held out


def content_key(content: Tensor) -> Tensor:
    """Return a key for each row of content, int64 [n, k] -> int64 [n]; equal rows have equal keys.

    In a set of n different rows, two have equal keys with probability n² / 2⁶⁵: 3 in 10⁸ for a million rows.

    Example:
        >>> content_key(torch.tensor([[1, 2], [2, 1], [1, 2]])).unique().numel()
        2
    """
    key = torch.full_like(content[:, 0], content.shape[1])
    for column in content.unbind(1):
        key = mixed(key + column)
    return key


class NumberedTask(Task[P, S]):
    """A task whose problems are numbered: `numbers` lists the numbers of a stage, and `problems` computes the problems.

    A number may consist of several ones, in the columns of a row.
    """

    @abstractmethod
    def numbers(self, stage: int, split: Split) -> Tensor:
        """Return the numbers of all problems of a stage and split in a fixed order: int64 [size, ...].

        Raises:
            UserError: the stage has too many problems to list.
        """

    @abstractmethod
    def problems(self, stage: Tensor, numbers: Tensor) -> P:
        """Return the problems with given stages, int64 [n], and numbers, int64 [n, ...]."""

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[P]:
        for numbers in self.numbers(stage, split).split(chunk):
            if len(numbers):  # splitting an empty tensor gives one part
                yield self.problems(torch.full((len(numbers),), stage), numbers)

    def count(self, stage: int, split: Split = "all") -> int:
        return len(self.numbers(stage, split))


class StageTables:
    """The problems of all stages in tables, for uniform draws from each split on each device.

    Args:
        stages: the names of the stages.
        part: returns the numbers of all problems of a stage and split, int64 [size, ...].
    """

    def __init__(self, stages: Sequence[str], part: Callable[[int, Split], Tensor]) -> None:
        self._stages, self._part = stages, part
        self._made: dict[tuple[Split, torch.device], tuple[Tensor, Tensor, Tensor, bool]] = {}

    def draw(self, stage: Tensor, generator: torch.Generator, split: Split) -> Tensor:
        """Draw the numbers of a problem for each stage, int64 [n], uniformly.

        Raises:
            UserError: a stage has no problem in the split.
        """
        unit = torch.rand(stage.shape, generator=generator, device=stage.device, dtype=torch.float64)
        return self.pick(stage, split, lambda size: (unit * size).long())

    def pick(self, stage: Tensor, split: Split, row: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a row of each stage's part: `row` makes its index from the size of the part, int64 [n]."""
        if (split, stage.device) not in self._made:
            parts = [self._part(index, split) for index in range(len(self._stages))]
            size = torch.tensor([len(part) for part in parts])
            numbers, first, size = (x.to(stage.device) for x in (torch.cat(parts), size.cumsum(0) - size, size))
            self._made[split, stage.device] = (numbers, first, size, bool((size == 0).any()))
        numbers, first, sizes, has_gaps = self._made[split, stage.device]
        size = sizes.index_select(0, stage)
        if has_gaps and bool((size == 0).any()):
            raise empty_split(split, self._stages[int(stage[size == 0][0])])
        return numbers.index_select(0, row(size) + first.index_select(0, stage))


def draw_within(split: Split, stage: Tensor, draw: Callable[[Tensor], P], copies: int = 0) -> P:
    """Draw problems of a split by rejection: rows outside the split are drawn again.

    A task whose problems are computed from a few numbers draws `Problems` that hold these numbers in place of the
    context: drawing only them again is faster than drawing all fields of a problem.

    Args:
        split: see `Task.sample`.
        stage: int64 [n].
        draw: draws one problem for each stage from both splits; if it is uniform, so is the result.
        copies: draws for each rejected row, of which the last one in the split is used. By default 1 to 8, more of them
            for few rows, as drawing a few problems takes as long as drawing a thousand, and the first one is used.

    Raises:
        UserError: no problem of a stage was found in the split.
    """
    problems = draw(stage)
    outside = (~in_split(problems.key, split)).nonzero()[:, 0]
    for _ in range(TRIES):
        if not len(outside):
            return problems
        times = copies or min(8, max(1, 2048 // len(outside)))
        drawn = draw(stage[outside].repeat(times))
        inside = in_split(drawn.key, split).view(times, -1)
        # Which draw is used decides what a seed draws, so it must not change.
        used = times - 1 - inside.flip(0).int().argmax(0) if copies else inside.int().argmax(0)
        rows = used * len(outside) + torch.arange(len(outside), device=stage.device)
        problems = problems.put(outside, drawn[rows])
        outside = outside[~inside.any(0)]
    raise empty_split(split, int(stage[outside[0]]))


def require_listable(stage: str, total: int, most: int) -> None:
    """Raise a `UserError` unless the `total` problems of a stage are at most `most`."""
    shown = f"{total:,}" if total < 10**12 else f"{Decimal(total):.3g}"  # it may exceed the largest float
    if total > most:
        raise UserError(f"stage: {stage!r} has {shown} problems, too many to list; expected at most {most:,}")


def empty_split(split: Split, stage: int | str) -> UserError:
    """The error for a split without problems of a stage."""
    return UserError(f"split: {split!r} has no problem of stage {stage!r}, or too few; expected more problems")
