"""Do stages share the network? The units that one stage needs are removed in the others, beside random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelnative.errors import UserError
from modelnative.evidence.carriers import hidden_rows, problems_of, with_hidden_rows
from modelnative.evidence.interventions import Moment, moments, playback
from modelnative.evidence.record import Record
from modelnative.evidence.statistics import Share, share
from modelnative.policies.settings import standard_settings
from modelnative.tasks.contract.task import AnyTask, Problems, require

RANDOM_SETS = 5
MOST_UNITS = 1024
NEEDED = 0.5  # the share of its success below which a stage has lost what it needs
MORE = 0.1  # of the problems, than without random units


@dataclass(frozen=True)
class StageUnits(Record):
    """The units of the hidden state that a stage needs.

    A unit is removed by giving it, at every action, its mean over the stage's problems and actions.

    Attributes:
        stage: its name.
        success: with all units.
        count: how many of the most needed units must be removed until success is below half of that; 0: even without
            all units it is not.
        units: these units.
        without: success of every inspected stage without them, by name.
        random: success of every inspected stage without as many random units: the median of 5 sets, by name.
    """

    stage: str
    success: Share
    count: int
    units: tuple[int, ...]
    without: dict[str, Share]
    random: dict[str, Share]

    def shares_with(self, other: str) -> bool:
        """Whether another stage needs these units: without them it loses clearly more than without random ones."""
        return (self.random[other].rate or 0.0) - (self.without[other].rate or 0.0) > MORE

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = super().as_dict()
        random, without = found.pop("random"), found.pop("without")
        others = ({"shared": self.shares_with(n), "success": without[n], "random": random[n]} for n in without)
        return {**found, "without": dict(zip(without, others, strict=True))}


@standard_settings()
@torch.no_grad()
def sharing(policy: nn.Module, task: AnyTask, stages: Sequence[str], count: int) -> tuple[StageUnits, ...]:
    """Find the units that each of some stages needs, and remove them in all of these stages.

    Args:
        policy: fulfills the contract of `modelnative.Policy`.
        task: the task that it plays.
        stages: at least two names.
        count: number of problems of each stage.

    Raises:
        UserError: fewer than two stages; or a hidden state that is empty, has more than 1,024 numbers, or grows, as the
            cache of a Transformer does.
    """
    require(len(stages) >= 2, "stages", list(stages), "at least two stages, to compare what they need")
    parts = [_Stage(policy, task, name, count) for name in stages]
    return tuple(_needed(part, parts) for part in parts)


class _Stage:
    """Some problems of a stage, and what a unit is replaced by."""

    def __init__(self, policy: nn.Module, task: AnyTask, name: str, count: int) -> None:
        self.policy, self.task, self.name = policy, task, name
        device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
        self.problems: Problems = problems_of(task, task.spec.stage_index(name), count).to(device)
        rows = [self._rows(now) for now in moments(policy, task, self.problems) if not bool(now.state.done.all())]
        sizes = {part.shape[1] for part in rows}
        if len(sizes) > 1 or not 1 <= max(sizes) <= MOST_UNITS:
            allowed = f"1 to {MOST_UNITS:,}, always as many, to ask which of them a stage needs"
            raise UserError(f"policy: its hidden state has {max(sizes):,} numbers; expected {allowed}")
        self.mean, self.spread = torch.cat(rows).mean(0), torch.cat(rows).std(0)

    def _rows(self, now: Moment) -> Tensor:
        return hidden_rows(self.policy, now.memory)[~now.state.done]

    def without(self, units: Tensor) -> Share:
        """Success without some units, int64 [k]."""

        def removed(_: int, now: Moment) -> Moment:
            rows = hidden_rows(self.policy, now.memory).clone()
            rows[:, units] = self.mean[units]
            return with_hidden_rows(self.policy, now, rows)

        success = playback(self.policy, self.task, self.problems, removed if len(units) else None).success
        return share(success, torch.ones_like(success))

    def ranked(self) -> Tensor:
        """All units, those first whose removal costs most success; among equals those that vary most."""
        kept = torch.tensor([self.without(torch.tensor([unit])).hits for unit in range(len(self.mean))])
        by_spread = self.spread.cpu().argsort(descending=True, stable=True)
        return by_spread[kept[by_spread].argsort(stable=True)]


def _needed(stage: _Stage, stages: Sequence[_Stage]) -> StageUnits:
    nothing = torch.tensor([], dtype=torch.int64)
    whole, order = stage.without(nothing), stage.ranked()
    size = len(order)
    counts = sorted({min(2**i, size) for i in range(size.bit_length() + 1)})
    enough = [k for k in counts if stage.without(order[:k]).hits < NEEDED * whole.hits]
    count = enough[0] if enough else 0
    units = order[:count]
    generator = torch.Generator().manual_seed(3)
    sets = [torch.randperm(size, generator=generator)[:count] for _ in range(RANDOM_SETS)]
    random = {part.name: sorted((part.without(s) for s in sets), key=lambda s: s.hits)[2] for part in stages}
    without = {part.name: part.without(units) for part in stages}
    return StageUnits(stage.name, whole, count, tuple(units.tolist()), without, random)
