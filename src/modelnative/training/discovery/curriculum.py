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
from modelnative.training.discovery.procedures import PAD, Symbols, lengths, write_programs
from modelnative.training.discovery.search import KEPT, search_stages
from modelnative.training.events import Searched


class Discover(Hints):
    """The curriculum `hints`, with procedures that were found by a program search where the oracle's programs would be.

    Before the first update, `discovery` searches a procedure for every stage; the network learns it by hints that get
    shorter. The search needs a task whose episodes can be restarted and branched. It ends at the first stage for which
    no procedure is found within the budget; that stage and those after it have no hints.

    Attributes:
        found: int64 [S, KEPT, horizon], the procedures of each stage, the shortest first; empty where none was found.
        searched: int64 [], stages that need no further search.
        actions: int64 [S], that the search played.
    """

    needs_oracle: ClassVar[bool] = False
    found: Tensor
    searched: Tensor
    actions: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(torch.zeros_like(lengths), horizon, config)
        self.register_buffer("found", torch.full((len(lengths), KEPT, horizon), PAD))
        self.register_buffer("searched", torch.zeros((), dtype=torch.int64))
        self.register_buffer("actions", torch.zeros_like(lengths))

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
        )
        for finding in findings:
            best = finding.procedures[:1]
            if finding.ended:
                self.actions[finding.stage] = finding.steps
                self.searched.fill_(finding.stage + 1 if finding.found else stages)
                if finding.found:
                    self.found[finding.stage, : len(finding.procedures)] = finding.procedures.to(self.found.device)
                self._measure()
                # The frontier of `Hints` begins at the last token.
                self.frontier.copy_(torch.where(self.guided, 1, self.lengths))
                self.complete.copy_(~self.guided)
            yield Searched(
                stage=task.spec.stages[finding.stage],
                procedure=symbols.text(best[0]) if len(best) else "",
                solved=finding.solved,
                actions=finding.steps,
                found=finding.found,
                ended=finding.ended,
            )

    def program(self, task: AnyTask, problems: Problems) -> Tensor:
        return write_programs(task, self.found[:, 0].index_select(0, problems.stage), problems)

    def summary(self, task: AnyTask) -> dict[str, Any]:
        text = map(Symbols(task.spec).text, self.found[:, 0])
        return {
            stage: {"procedure": procedure, "search_actions": actions}
            for stage, procedure, actions in zip(task.spec.stages, text, self.actions.tolist(), strict=False)
        }

    def _measure(self) -> None:
        """Tell `Hints` how long the procedures are."""
        length = lengths(self.found[:, 0])
        self.guided = length > 0
        self.lengths = torch.where(self.guided, length, self.horizon)
