"""Replacing episodes that an algorithm does not want to learn from (dynamic sampling: DAPO, Yu et al., 2025)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.tasks.contract.batch import Batch
from modelnative.training.rollout import COLUMNS, VERDICTS, Rollout


def replace_rejected(rollouts: Sequence[tuple[Rollout, Tensor]], episodes: int) -> Rollout:
    """The first `episodes` episodes that were kept; where they are too few, rejected ones of the first rollout too.

    Args:
        rollouts: one or more, and which of their episodes were kept, bool [n].
        episodes: how many are wanted; the first rollout has at least as many.
    """
    first, kept = rollouts[0]
    if bool(kept.all()) and len(kept) == episodes:
        return first
    chosen = [rollout.select(keep.nonzero()[:, 0]) for rollout, keep in rollouts]
    chosen.append(first.select((~kept).nonzero()[:, 0]))
    return _join(chosen).select(torch.arange(episodes, device=kept.device))


def _join(rollouts: Sequence[Rollout]) -> Rollout:
    """Rollouts side by side."""
    steps = max(len(rollout.action) for rollout in rollouts)

    def column(name: str) -> Tensor:
        parts = [getattr(rollout, name) for rollout in rollouts]
        return torch.cat([pad(x, (0, 0) * (x.dim() - 1) + (0, steps - len(x))) for x in parts], 1)

    problems = Batch.cat([rollout.problems for rollout in rollouts])
    verdicts = {name: torch.cat([getattr(rollout, name) for rollout in rollouts]) for name in VERDICTS}
    return Rollout(problems, final=None, **{name: column(name) for name in COLUMNS}, **verdicts)
