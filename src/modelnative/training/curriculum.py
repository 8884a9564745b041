"""Which stages, and which hints, the next batch of episodes is drawn from.

A curriculum sees the verdicts of the verifier, never the reward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from modelnative.errors import UserError
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, Split, program_length
from modelnative.training.config import CurriculumConfig
from modelnative.training.discovery.procedures import Map

if TYPE_CHECKING:
    from modelnative.training.events import Searched
    from modelnative.training.rollout import Rollout


@dataclass
class Draw(Batch):
    """What to play.

    Attributes:
        stage: int64 [n].
        own_tokens: int64 [n], how many tokens at the end of the program the policy writes itself; a hint writes those
            before them. The horizon: no hint.
        explore: float [n], probability that an action is drawn blindly, at `reach` tokens after the hint and `delay`
            more.
        delay, reach: int64 [n].
    """

    stage: Tensor
    own_tokens: Tensor
    explore: Tensor
    delay: Tensor
    reach: Tensor


@dataclass(frozen=True)
class Preparation:
    """What a curriculum is given before the first update.

    Attributes:
        seed: of all chance.
        split: the problems to train on.
        map_parts: applies a function to parts of the work, perhaps in several threads, and returns the results.
    """

    seed: int
    split: Split
    map_parts: Map


class Curriculum(nn.Module):
    """Draws stages by weight, without hints; subclasses say the weights. See `own_curriculum.py` in the examples.

    Its state is tensors, registered as module buffers, so that it is checkpointed with the weights.

    Args:
        lengths: int64 [S], the longest oracle program of each stage; 0 where there is none that succeeds.
        horizon: the most tokens of an episode.
        config: its numbers.

    Attributes:
        recipe: fields of `TrainConfig` that this curriculum needs, as nested dictionaries; see `recipe`.
        needs_oracle: whether it works only on tasks with an oracle.
        reads_rollouts: whether `learn` needs all columns of the episodes of all processes.
        success: float [S], smoothed success of the episodes without a hint, measured without exploration.
        seen: bool [S], whether `success` has a measurement.
    """

    recipe: ClassVar[dict[str, Any]] = {}
    needs_oracle: ClassVar[bool] = False
    reads_rollouts: ClassVar[bool] = False
    lengths: Tensor
    success: Tensor
    seen: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__()
        self.config = config
        self.horizon = horizon
        self.register_buffer("lengths", torch.where(lengths > 0, lengths, horizon), persistent=False)
        self.register_buffer("success", torch.zeros(len(lengths)))
        self.register_buffer("seen", torch.zeros(len(lengths), dtype=torch.bool))

    @classmethod
    def for_task(cls, task: AnyTask, config: CurriculumConfig | None = None, stages: int = 0) -> Self:
        """A new curriculum over the first `stages` stages of a task; 0 is all.

        Raises:
            UserError: it needs an oracle, and the task has none.
        """
        if cls.needs_oracle and not task.has_oracle:
            raise UserError(
                f"curriculum: {cls.__name__} needs an oracle, and the task {task.spec.name} has none; "
                "choose another curriculum, such as threshold"
            )
        lengths = program_lengths(task)[: stages or None]
        return cls(lengths, task.spec.horizon, config or CurriculumConfig())

    def prepare(self, task: AnyTask, preparation: Preparation) -> Iterator[Searched]:
        """Work that comes before the first update, in steps; what is done already is not done again."""
        return iter(())

    def program(self, task: AnyTask, problems: Problems) -> Tensor | None:
        """What hints are taken from: int64 [n, horizon], padded with `TaskSpec.end`; by default the oracle's."""
        return task.oracle(problems) if task.has_oracle else None

    def summary(self, task: AnyTask) -> dict[str, Any]:
        """What to keep with the result of a training, JSON-ready."""
        return {}

    def weights(self, progress: float) -> Tensor:
        """Relative frequency of each stage, float [S]; `progress` is the share of the update budget that is spent."""
        return torch.ones_like(self.success)

    def draw(self, n: int, generator: torch.Generator, progress: float) -> Draw:
        """Draw n episodes. Some of those of a stage that fails explore, for one to three tokens anywhere."""
        stage = torch.multinomial(self.weights(progress), n, replacement=True, generator=generator)
        choice, place, length = torch.rand(3, n, generator=generator, device=stage.device)
        whole = torch.full_like(stage, self.horizon)
        return Draw(
            stage=stage,
            own_tokens=whole,
            explore=torch.where(choice < self.searching[stage], self.config.explore, 0.0),
            delay=(place * self.horizon).long(),
            reach=1 + (3 * length).long(),
        )

    def problems(self, task: AnyTask, draw: Draw, generator: torch.Generator, split: Split) -> Problems:
        """The problems to play, one for each row of a draw; by default new ones."""
        problems: Problems = task.sample(draw.stage, generator, split)
        return problems

    def learn(self, task: AnyTask, rollout: Rollout, generator: torch.Generator) -> None:
        """Learn from whole episodes, after `observe`; of several processes, only with `reads_rollouts`."""

    def practice(self, stage: Tensor, generator: torch.Generator) -> Draw:
        """How to play problems that went wrong before: without a hint, exploring one token, anywhere."""
        place = torch.rand(len(stage), generator=generator, device=stage.device)
        return Draw(
            stage=stage,
            own_tokens=torch.full_like(stage, self.horizon),
            explore=torch.full_like(place, self.config.explore),
            delay=(place * self.lengths[stage]).long(),
            reach=torch.ones_like(stage),
        )

    def observe(self, draw: Draw, success: Tensor) -> None:
        """Learn from the verdicts, bool [n]."""
        rate, count = success_rates(
            draw.stage, success, (draw.own_tokens >= self.lengths[draw.stage]) & (draw.explore == 0), self
        )
        kept = torch.where(self.seen, self.config.success_ema, 0.0)
        self.success.copy_(torch.where(count > 0, kept * self.success + (1 - kept) * rate, self.success))
        self.seen |= count > 0

    @property
    def failure(self) -> float:
        """Smoothed failure, without hints, of the worst stage: what is left to learn; 1 until every stage was seen."""
        return 1.0 - float(torch.where(self.seen, self.success, 0.0).min())

    @property
    def searching(self) -> Tensor:
        """Share of each stage's episodes without a hint that explore: up to half, in proportion to its failure."""
        return (5 * (1 - self.success)).clamp(max=0.5)

    def describe(self) -> list[str]:
        """Where each stage stands, in a word or two, for people."""
        return ["" for _ in self.lengths]


def success_rates(stage: Tensor, success: Tensor, chosen: Tensor, curriculum: Curriculum) -> tuple[Tensor, Tensor]:
    """Success rate and number of the `chosen` episodes of each stage: float [S], int64 [S]."""
    stages = len(curriculum.lengths)
    count = torch.bincount(stage[chosen], minlength=stages)
    wins = torch.bincount(stage[chosen & success], minlength=stages)
    return wins / count.clamp_min(1), count


def program_lengths(task: AnyTask) -> Tensor:
    """The longest oracle program of each stage in 256 problems: int64 [S]; 0 where no oracle succeeds."""
    stages = len(task.spec.stages)
    if not task.has_oracle:
        return torch.zeros(stages, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    lengths = []
    for stage, solvable in enumerate(task.spec.solvable or (True,) * stages):
        problems = task.sample(torch.full((256,), stage), generator)
        lengths.append(solvable * program_length(task.oracle(problems), task.spec.end).amax())
    return torch.stack(lengths)
