"""The curricula that are shipped, each with its recipe."""

from __future__ import annotations

from typing import Any, ClassVar

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


class Uniform(Curriculum):
    """All stages alike, from the start."""


class Threshold(Curriculum):
    """Stages open one after the other, each when the one before succeeds; none is ever forgotten.

    Attributes:
        opened: int64 [], how many stages are open.
    """

    recipe: ClassVar[dict[str, Any]] = {"curricula": {"threshold": 0.9}}
    opened: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(lengths, horizon, config)
        self.register_buffer("opened", torch.tensor(1))

    def weights(self, progress: float) -> Tensor:
        is_open = torch.arange(len(self.lengths), device=self.opened.device) < self.opened
        return is_open * (1 - self.success).clamp_min(self.config.min_stage_weight)

    def observe(self, draw: Draw, success: Tensor) -> None:
        super().observe(draw, success)
        if self.opened < len(self.lengths) and self.success[self.opened - 1] > self.config.threshold:
            self.opened += 1

    def describe(self) -> list[str]:
        return ["" if s < self.opened else "locked" for s in range(len(self.lengths))]


class Learnability(Curriculum):
    """Stages by p(1 − p), p the success so far (Tzannetos et al., 2023; SFL, Rutherford et al., 2024)."""

    def weights(self, progress: float) -> Tensor:
        unknown = torch.where(self.seen, self.success * (1 - self.success), 0.25)
        return unknown + self.config.min_stage_weight


class Regret(Curriculum):
    """Stages by exact regret: what the oracle reaches, which is known, minus what the policy reaches.

    Where regret must be estimated (PAIRED, Dennis et al., 2020), stages that nobody can solve draw all attention; here
    they have none, as the oracle fails there, too.
    """

    needs_oracle: ClassVar[bool] = True
    best: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(lengths, horizon, config)
        self.register_buffer("best", (lengths > 0).float(), persistent=False)

    def weights(self, progress: float) -> Tensor:
        return (self.best - self.success).clamp_min(self.config.min_stage_weight)


class LearningProgress(Curriculum):
    """Stages by learning progress: the distance between a fast and a slow average of success (Matiisen et al., 2017).

    Attributes:
        slow: float [S], success averaged over ten times as many updates as `success`.
    """

    slow: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(lengths, horizon, config)
        self.register_buffer("slow", torch.zeros_like(self.success))

    def weights(self, progress: float) -> Tensor:
        change = (self.success - self.slow).abs()
        # Where nothing moves, all are looked at alike.
        return change / change.max().clamp_min(0.01) + self.config.min_stage_weight

    def observe(self, draw: Draw, success: Tensor) -> None:
        super().observe(draw, success)
        self.slow += (1 - self.config.success_ema) / 10 * (self.success - self.slow)


class Bandit(Curriculum):
    """Stages by a bandit whose reward is the mean size of the advantages (SEC, Chen et al., 2025).

    For a reward of 0 or 1 that is 2p(1 − p), p being a batch's success. Values follow it by temporal differences, and
    stages are drawn by their softmax. Unlike there, the weight of a stage is at least `min_stage_weight` times that of
    the stage with the highest value: a solved stage, whose value is 0, would be forgotten.

    Attributes:
        value: float [S].
    """

    RATE, TEMPERATURE = 0.3, 0.1
    value: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(lengths, horizon, config)
        self.register_buffer("value", torch.full_like(self.success, 0.5))  # the most there can be: try everything

    def weights(self, progress: float) -> Tensor:
        return ((self.value - self.value.max()) / self.TEMPERATURE).exp().clamp_min(self.config.min_stage_weight)

    def observe(self, draw: Draw, success: Tensor) -> None:
        super().observe(draw, success)
        rate, count = success_rates(draw.stage, success, torch.ones_like(success), self)
        followed = self.value + self.RATE * (2 * rate * (1 - rate) - self.value)
        self.value.copy_(torch.where(count > 0, followed, self.value))


class TutorialSchedule(Curriculum):
    """The published tutorial's fixed schedule: half of the updates on T0, a third on T1, the last sixth on T2."""

    SCHEDULE = (0, 0, 0, 1, 1, 2)

    def weights(self, progress: float) -> Tensor:
        stage = self.SCHEDULE[min(int(progress * len(self.SCHEDULE)), len(self.SCHEDULE) - 1)]
        return (
            torch.arange(len(self.lengths), device=self.success.device) == min(stage, len(self.lengths) - 1)
        ).float()
