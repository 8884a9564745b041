"""Problems that are too many to list: a canonical key from their content, and draws that stay within a split."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.task import P, Split, in_split, mixed

TRIES = 1000  # redraws before a split counts as empty; a problem is held out one time in five


def content_key(content: Tensor) -> Tensor:
    """A key for each row of content, int64 [n, k] -> int64 [n]: equal rows have equal keys.

    Different rows have different keys but for a chance of n² / 2⁶⁵ in a set of n, 3 in 10⁸ for a million problems.

    Example:
        >>> content_key(torch.tensor([[1, 2], [2, 1], [1, 2]])).unique().numel()
        2
    """
    key = torch.full_like(content[:, 0], content.shape[1])
    for column in content.unbind(1):
        key = mixed(key + column)
    return key


def draw_within(split: Split, stage: Tensor, draw: Callable[[Tensor], P]) -> P:
    """Problems of a split by rejection: rows outside it are drawn again until all are inside.

    Args:
        split: as in `Task.sample`.
        stage: int64 [n].
        draw: draws a problem for each of some stages, from all of them; if uniformly, the result is uniform.

    Raises:
        UserError: a stage seems to have no problem in the split.
    """
    problems = draw(stage)
    for _ in range(TRIES):
        outside = (~in_split(problems.key, split)).nonzero()[:, 0]
        if not len(outside):
            return problems
        # A few problems take as long to draw as a thousand, so each place gets several, and the first that is inside.
        copies = min(8, max(1, 2048 // len(outside)))
        drawn = draw(stage[outside].repeat(copies))
        first = in_split(drawn.key, split).view(copies, -1).int().argmax(0)
        rows = first * len(outside) + torch.arange(len(outside), device=stage.device)
        problems = problems.put(outside, drawn[rows])
    raise UserError(f"split: {split!r} has no problem of stage {int(stage[outside[0]])}, or hardly any; it needs more")
