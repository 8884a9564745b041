"""Helpers for `Task.sample`: uniform draws, draws within a split by rejection, and keys from content."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.task import P, Split, in_split, mixed

TRIES = 1000  # redraws before a split counts as empty; one problem in five is held out
SPARES = 6  # draws for each rejected row in `numbers_within`; all of them are held out one time in 16,000


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


def uniform_rows(stage: Tensor, first: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a row of a table that holds the problems of all stages, one stage after the other.

    Args:
        stage: int64 [n].
        first, size: int64 [stages], the first row of each stage, and its number of rows.
        generator: draws the rows.

    Returns:
        int64 [n], uniform within the rows of each stage.
    """
    unit = torch.rand(stage.shape, generator=generator, device=stage.device, dtype=torch.float64)
    return (unit * size.index_select(0, stage)).long() + first.index_select(0, stage)


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
        """Draw the numbers of a problem for each stage, int64 [n].

        Raises:
            UserError: a stage has no problem in the split.
        """
        if (split, stage.device) not in self._made:
            parts = [self._part(index, split) for index in range(len(self._stages))]
            size = torch.tensor([len(part) for part in parts])
            numbers, first, size = (x.to(stage.device) for x in (torch.cat(parts), size.cumsum(0) - size, size))
            self._made[split, stage.device] = (numbers, first, size, bool((size == 0).any()))
        numbers, first, size, has_gaps = self._made[split, stage.device]
        if has_gaps and bool((empty := size.index_select(0, stage) == 0).any()):
            raise empty_split(split, self._stages[int(stage[empty][0])])
        return numbers.index_select(0, uniform_rows(stage, first, size, generator))


def draw_within(split: Split, stage: Tensor, draw: Callable[[Tensor], P]) -> P:
    """Draw problems of a split by rejection: rows outside the split are drawn again.

    Args:
        split: see `Task.sample`.
        stage: int64 [n].
        draw: draws one problem for each stage from both splits; if it is uniform, so is the result.

    Raises:
        UserError: no problem of a stage was found in the split.
    """
    problems = draw(stage)
    for _ in range(TRIES):
        outside = (~in_split(problems.key, split)).nonzero()[:, 0]
        if not len(outside):
            return problems
        # Drawing a few problems takes as long as drawing a thousand, so each row is drawn several times and the first
        # draw in the split is used.
        copies = min(8, max(1, 2048 // len(outside)))
        drawn = draw(stage[outside].repeat(copies))
        first = in_split(drawn.key, split).view(copies, -1).int().argmax(0)
        rows = first * len(outside) + torch.arange(len(outside), device=stage.device)
        problems = problems.put(outside, drawn[rows])
    raise empty_split(split, int(stage[outside[0]]))


def numbers_within(
    split: Split, stage: Tensor, draw: Callable[[Tensor], Tensor], key: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Draw numbers that determine problems of a split, by rejection.

    It is the same as `draw_within` for tasks whose problems are computed from one or a few numbers: only the numbers
    are drawn again, which is faster than drawing all fields of a problem.

    Args:
        split: see `Task.sample`.
        stage: int64 [n].
        draw: draws numbers, int64 [m, ...], for stages, int64 [m], from both splits; if it is uniform, so is the
            result.
        key: returns the keys, int64 [m], of the problems with given stages and numbers.

    Raises:
        UserError: no problem of a stage was found in the split.
    """
    numbers = draw(stage)
    if split == "all":
        return numbers
    outside = (~in_split(key(stage, numbers), split)).nonzero()[:, 0]
    for _ in range(TRIES):
        if not len(outside):
            return numbers
        again = stage.index_select(0, outside).repeat(SPARES)
        spares = draw(again)
        chosen, found = numbers.index_select(0, outside), torch.zeros_like(outside, dtype=torch.bool)
        candidates = spares.view(SPARES, *chosen.shape).unbind()
        for spare, inside in zip(candidates, in_split(key(again, spares), split).view(SPARES, -1), strict=True):
            chosen = torch.where(inside.view(-1, *[1] * (spare.dim() - 1)), spare, chosen)
            found = found | inside
        numbers = numbers.index_copy(0, outside, chosen)
        outside = outside[~found]
    raise empty_split(split, int(stage[outside[0]]))


def empty_split(split: Split, stage: int | str) -> UserError:
    """The error for a split without problems of a stage."""
    return UserError(f"split: {split!r} has no problem of stage {stage!r}, or too few; expected more problems")
