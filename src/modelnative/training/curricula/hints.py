"""Reverse curriculum from hints."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from modelnative.training.config import CurriculumConfig
from modelnative.training.curriculum import Curriculum, Draw, success_rates

PATIENCE = 15  # updates without progress after which a stage that needs no hints explores again


class Hints(Curriculum):
    """Reverse curriculum (Florensa et al., 2017; Salimans and Chen, 2018): the oracle writes all but the last tokens.

    Each stage has a frontier, the number of tokens that the policy writes itself. At the frontier's first token some
    actions are drawn blindly, because what the policy has learned so far may be the wrong habit there. When the
    episodes at the frontier succeed, it moves back by one token, until no hint is left. A stage whose oracle does not
    succeed has no hints: the policy writes its whole episodes from the start.

    Attributes:
        guided: bool [S], there are hints.
        frontier: int64 [S], how many tokens the policy writes itself.
        complete: bool [S], there are no hints, or no more: the policy writes the whole program and succeeds.
        best: float [S], the highest success so far.
        stale: int64 [S], observations since it last rose by half a percent.
    """

    needs_oracle: ClassVar[bool] = True
    guided: Tensor
    frontier: Tensor
    complete: Tensor
    best: Tensor
    stale: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(lengths, horizon, config)
        self.register_buffer("guided", lengths > 0, persistent=False)
        self.register_buffer("frontier", torch.where(self.guided, 1, self.lengths))
        self.register_buffer("complete", ~self.guided)
        self.register_buffer("best", torch.zeros_like(self.success))
        self.register_buffer("stale", torch.zeros_like(lengths))

    def weights(self, progress: float) -> Tensor:
        mastered = (1 - self.success).clamp_min(self.config.min_stage_weight)
        learning = 1.2 - (self.frontier - 1) / self.lengths
        return torch.where(self.complete, mastered, learning)

    def draw(self, n: int, generator: torch.Generator, progress: float) -> Draw:
        stage = torch.multinomial(self.weights(progress), n, replacement=True, generator=generator)
        frontier, complete = self.frontier[stage], self.complete[stage]
        depth, choice, search, place = torch.rand(4, n, generator=generator, device=stage.device)
        below = 1 + (depth * frontier).long()
        ahead = (choice < self.config.frontier) | self.complete.all() | ~self.guided[stage]
        own_tokens = torch.where(ahead, frontier, below)
        # A stage that goes on failing although it needs no more hints has a wrong habit somewhere: explore anywhere.
        anywhere = complete & (search < self.searching[stage])
        whole = own_tokens >= self.lengths[stage]
        return Draw(
            stage=stage,
            own_tokens=torch.where(whole, self.horizon, own_tokens),
            explore=torch.where((ahead & ~complete) | anywhere, self.config.explore, 0.0),
            delay=torch.where(complete, (place * self.lengths[stage]).long(), 0),
            reach=torch.ones_like(stage),
        )

    def observe(self, draw: Draw, success: Tensor) -> None:
        super().observe(draw, success)
        # Without exploration nothing tells the frontier's episodes from those below that were drawn as long.
        frontier = draw.own_tokens.minimum(self.lengths[draw.stage]) == self.frontier[draw.stage]
        rate, count = success_rates(draw.stage, success, draw.explore > 0 if self.config.explore else frontier, self)
        moves = (count > 0) & (rate > self.config.threshold) & ~self.complete
        rises = self.success > self.best + 0.005
        self.best.copy_(torch.where(rises, self.success, self.best))
        self.stale.copy_(torch.where(rises, 0, self.stale + 1))
        self.complete |= moves & (self.frontier == self.lengths)
        self.frontier += moves & (self.frontier < self.lengths)

    @property
    def searching(self) -> Tensor:
        return torch.where(self.stale >= PATIENCE, super().searching, 0.0)

    def describe(self) -> list[str]:
        return [
            "" if done else f"{frontier}/{length} free"
            for done, frontier, length in zip(
                self.complete.tolist(), self.frontier.tolist(), self.lengths.tolist(), strict=True
            )
        ]
