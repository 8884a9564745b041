"""The best procedure with copying that a search finds for each stage."""

from __future__ import annotations

import torch

from modelnative.tasks.contract.task import AnyTask
from modelnative.training.discovery.search import Finding, search_stages
from modelnative.training.parallel import Pool, cores


class ProcedureSearch:
    """Searches the stages of a task in their order, each from what solved the stage before, and each once.

    Args:
        task: any.
        budget: the most actions to play for a stage.
    """

    def __init__(self, task: AnyTask, budget: int) -> None:
        self.task, self.budget, self.findings = task, budget, list[Finding]()
        self.known = torch.empty(0, task.spec.horizon, dtype=torch.int64)

    def best(self, stage: int) -> Finding:
        """What was found for a stage."""
        while len(self.findings) <= stage:
            stages = range(len(self.findings), len(self.task.spec.stages))
            search = search_stages(self.task, stages, self.known, 0, self.budget, Pool(cores()).map, "all")
            finding = next(finding for finding in search if finding.ended)
            self.findings.append(finding)
            self.known = finding.procedures if finding.found else self.known
        return self.findings[stage]
