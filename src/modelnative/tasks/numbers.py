"""Problems that are made from numbers: draws within a split that draw again only the numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.sampling import TRIES
from modelnative.tasks.contract.task import Split, in_split

SPARES = 6  # draws for each row that fell outside; all of them are held out one time in 16,000


def numbers_within(
    split: Split, stage: Tensor, draw: Callable[[Tensor], Tensor], key: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Numbers from which problems of a split are made, by rejection; as `draw_within`, but problems are made once.

    A round costs the more the more tensors a problem has, and there is one for every factor of 5 in n. Here a row
    that fell outside is drawn several times at once, and one of the draws that are inside is taken.

    Args:
        split: as in `Task.sample`.
        stage: int64 [n].
        draw: draws numbers, int64 [m, ...], for stages, int64 [m], from all; if uniformly, the result is uniform.
        key: the keys of the problems that are made from stages and numbers: int64 [m].

    Raises:
        UserError: a stage seems to have no problem in the split.
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
    raise UserError(f"split: {split!r} has no problem of stage {int(stage[outside[0]])}, or hardly any; it needs more")
