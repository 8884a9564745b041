"""Your own curriculum: the easiest stage that is not yet solved gets most of the episodes.

modelnative train --curriculum own_curriculum:EasiestFirst
"""

import torch
from torch import Tensor

import modelnative as mn


class EasiestFirst(mn.Curriculum):
    """Half of the episodes on the first stage below `threshold`; the others on all stages alike, without hints."""

    recipe = {"curricula": {"threshold": 0.9}}

    def weights(self, progress: float) -> Tensor:
        """Relative frequency of each stage, float [S]."""
        weights = torch.ones_like(self.success)
        unsolved = (self.success < self.config.threshold).nonzero()[:, 0]
        if len(unsolved):
            weights[unsolved[0]] += len(weights)
        return weights

    def describe(self) -> list[str]:
        """Where each stage stands, for the terminal and the metrics."""
        return ["solved" if rate >= self.config.threshold else "" for rate in self.success.tolist()]


if __name__ == "__main__":
    task = mn.make("recall")
    config = mn.with_fields(mn.recipe(task, curriculum="uniform"), {"updates": 30})
    for metrics in mn.Trainer(task, config, curriculum=EasiestFirst.for_task(task)):
        if metrics.update % 10 == 0:
            print(metrics.update, metrics.stages, metrics.success)
