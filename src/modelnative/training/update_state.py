"""What one update of a trainer holds between its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from modelnative.training.curriculum import Draw
from modelnative.training.loss import LossTokens
from modelnative.training.rollout import Rollout


@dataclass
class UpdateState:
    """One update in progress.

    Attributes:
        rollout: the episodes to learn from.
        mask: bool [T, n], the tokens in the loss.
        length, tokens: int64 [n], actions of each episode, and those of them that are in the loss.
        columns: what the loss reads, of all T * n tokens.
        steps: actions of all episodes that were played.
        played: every draw of the curriculum and the verdicts on its episodes, bool [n]; more than one only where the
            algorithm rejects episodes.
        entropy_weight: of this update.
        started, learning: the times at which the update and its gradient steps began, in seconds.
        terms, norms: of the gradient steps so far: the loss's terms, and the norm of the gradient before clipping.
    """

    rollout: Rollout
    mask: Tensor
    length: Tensor
    tokens: Tensor
    columns: LossTokens
    steps: int
    played: list[tuple[Draw, Tensor]] = field(default_factory=list)
    entropy_weight: float = 0.0
    started: float = 0.0
    learning: float = 0.0
    terms: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, rollout: Rollout, advantage: Tensor, target: Tensor, mask: Tensor, **rest: Any) -> UpdateState:
        """What to learn from a rollout; `rest` are the other attributes by name."""
        chosen = rollout.loss_mask
        taken = (rollout.action, rollout.behavior_log_prob, advantage, target)
        columns = LossTokens(*(x.flatten() for x in (*taken, chosen, rollout.explored, mask & ~chosen)))
        return cls(rollout, mask, rollout.length, mask.sum(0), columns, **rest)
