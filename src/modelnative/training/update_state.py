"""What one update of a trainer holds between its steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from modelnative.training.curriculum import Draw
from modelnative.training.loss import LossTokens
from modelnative.training.rollout import Rollout


@dataclass
class UpdateState:
    """One update in progress.

    Attributes:
        rollout: the episodes to learn from.
        played: every draw of the curriculum and the verdicts on its episodes, bool [n]; more than one only where the
            algorithm rejects episodes.
        steps: actions of all episodes that were played.
        mask: bool [T, n], the tokens in the loss.
        length, tokens: int64 [n], actions of each episode, and those of them that are in the loss.
        columns: what the loss reads, of all T * n tokens.
        entropy_weight: of this update.
        started, learning: the times at which the update and its gradient steps began, in seconds.
        terms, norms: of the gradient steps so far: the loss's terms, and the norm of the gradient before clipping.
    """

    rollout: Rollout
    played: list[tuple[Draw, Tensor]]
    steps: int
    mask: Tensor
    length: Tensor
    tokens: Tensor
    columns: LossTokens
    entropy_weight: float
    started: float
    learning: float
    terms: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
