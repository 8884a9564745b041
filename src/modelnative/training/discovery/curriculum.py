"""Hints without an oracle: the procedures that a search finds, stage after stage, write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.config import CurriculumConfig
from modelnative.training.curricula import Hints
from modelnative.training.curriculum import Preparation
from modelnative.training.discovery.cover import MOST
from modelnative.training.discovery.procedures import PAD, Symbols, lengths, solving_programs
from modelnative.training.discovery.search import search_stages
from modelnative.training.events import Searched


class Discover(Hints):
    """The curriculum `hints`, with procedures that were found by a program search where the oracle's programs would be.

    Before the first update, `discovery` searches a procedure for every stage, or several that solve it together; the
    network learns them by hints that get shorter, and by imitation of the hints. Where there are several, the hint for
    a problem is taken from the first that solves it. The search needs a task whose episodes can be restarted and
    branched. It ends at the first stage for which nothing is found within the budget; that stage and those after it
    have no hints.

    Attributes:
        found: int64 [S, MOST, horizon], the procedures of each stage, the first of them first; empty rows follow.
        several: bool [S], the procedures of a stage solve it together, and not each alone.
        searched: int64 [], stages that need no further search.
        actions: int64 [S], that the search played.
    """

    recipe: ClassVar[dict[str, Any]] = {"loss": {"hint_weight": 0.2}}
    needs_oracle: ClassVar[bool] = False
    found: Tensor
    several: Tensor
    searched: Tensor
    actions: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(torch.zeros_like(lengths), horizon, config)
        self.register_buffer("found", torch.full((len(lengths), MOST, horizon), PAD))
        self.register_buffer("several", torch.zeros(len(lengths), dtype=torch.bool))
        self.register_buffer("searched", torch.zeros((), dtype=torch.int64))
        self.register_buffer("actions", torch.zeros_like(lengths))
        self._written: tuple[Problems, Tensor] | None = None  # the last problems, and the programs for them

    @classmethod
    def for_task(cls, task: AnyTask, config: CurriculumConfig | None = None, stages: int = 0) -> Self:
        nothing = torch.zeros(stages or len(task.spec.stages), dtype=torch.int64)
        return cls(nothing, task.spec.horizon, config or CurriculumConfig())

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        result = super().load_state_dict(*args, **kwargs)
        self._measure()
        return result

    def prepare(self, task: AnyTask, preparation: Preparation) -> Iterator[Searched]:
        symbols, stages, first = Symbols(task.spec), len(self.lengths), int(self.searched)
        known = self.found[max(first - 1, 0)].cpu()
        findings = search_stages(
            task,
            range(first, stages),
            known[lengths(known) > 0],
            preparation.seed,
            self.config.search_budget,
            preparation.map_parts,
            preparation.split,
            several=True,
        )
        for finding in findings:
            best = finding.procedures[: None if finding.several else 1]
            if finding.ended:
                self.actions[finding.stage] = finding.steps
                self.searched.fill_(finding.stage + 1 if finding.found else stages)
                if finding.found:
                    self.several[finding.stage] = finding.several
                    self.found[finding.stage, : len(finding.procedures)] = finding.procedures.to(self.found.device)
                self._measure()
                # The frontier of `Hints` begins at the last token.
                self.frontier.copy_(torch.where(self.guided, 1, self.lengths))
                self.complete.copy_(~self.guided)
            yield Searched(
                stage=task.spec.stages[finding.stage],
                procedures=tuple(symbols.text(each) for each in best),
                solved=finding.solved,
                actions=finding.steps,
                found=finding.found,
                ended=finding.ended,
            )

    def program(self, task: AnyTask, problems: Problems) -> Tensor:
        if (
            self._written is None or self._written[0] is not problems
        ):  # metrics ask again for what hints were taken from
            self._written = problems, solving_programs(task, self._hinted(), problems)
        return self._written[1]

    def summary(self, task: AnyTask) -> dict[str, Any]:
        text = Symbols(task.spec).text
        return {
            stage: {
                "procedures": [text(each) for each in procedures if bool(each[0] != PAD)],
                "search_actions": actions,
            }
            for stage, procedures, actions in zip(task.spec.stages, self._hinted(), self.actions.tolist(), strict=False)
        }

    def _hinted(self) -> Tensor:
        """The procedures that hints are taken from: int64 [S, MOST, horizon], empty rows last."""
        others = torch.arange(MOST, device=self.found.device)[:, None] > 0
        return torch.where(others & ~self.several[:, None, None], PAD, self.found)

    def _measure(self) -> None:
        """Tell `Hints` how long the procedures are."""
        length = lengths(self._hinted().flatten(0, 1)).view(len(self.found), MOST).amax(1)
        self.guided, self._written = length > 0, None
        self.lengths = torch.where(self.guided, length, self.horizon)
