"""A curriculum that imitates the programs of problems that were solved before."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, Problems, Split
from modelnative.training.config import CurriculumConfig
from modelnative.training.curricula import Threshold
from modelnative.training.curriculum import Draw
from modelnative.training.rollout import Rollout
from modelnative.training.self_imitation.search import ProblemSearch
from modelnative.training.self_imitation.solutions import POLICY, Solutions

REPLAYED, TRIED = 0.25, 0.25  # most shares of a stage's episodes that imitate, and that try what was not solved
FAILING = 4  # times the share of problems that the policy fails is how much of them is used
POOLED = 0.5  # share of the other episodes whose problem is one of the table, too
BLIND = 0.05  # probability that an action of the latter is drawn blindly


class SelfImitation(Threshold):
    """Stages as in `threshold`, and a table of training problems with the best program found so far for each.

    Up to a quarter of the episodes imitates programs of problems that the policy fails (self-imitation learning, Oh et
    al., 2018; priority queue training, Abolafia et al., 2018). Up to a quarter tries problems that have no program or
    that the policy fails, with blind actions in between; the others are new problems. The table grows by the policy's
    own successes and by a program search, which varies known programs on other problems in every update (expert
    iteration, Anthony et al., 2017, with that search as the expert), unless `config.search` is off. Who found a program
    is kept apart.

    Attributes:
        solutions: the table.
        actions: int64 [S], actions that the search has played at each stage; they are not among the training's steps.
    """

    recipe: ClassVar[dict[str, Any]] = {"curricula": {"threshold": 0.75}, "loss": {"hint_weight": 1.0}}
    reads_rollouts: ClassVar[bool] = True
    actions: Tensor

    def __init__(self, lengths: Tensor, horizon: int, config: CurriculumConfig) -> None:
        super().__init__(lengths, horizon, config)
        self.solutions = Solutions(len(lengths), horizon)
        self.register_buffer("actions", torch.zeros_like(lengths))
        self._searches: dict[int, ProblemSearch] = {}

    @classmethod
    def for_task(cls, task: AnyTask, config: CurriculumConfig | None = None, stages: int = 0) -> Self:
        nothing = torch.zeros(stages or len(task.spec.stages), dtype=torch.int64)
        return cls(nothing, task.spec.horizon, config or CurriculumConfig())

    def draw(self, n: int, generator: torch.Generator, progress: float) -> Draw:
        stage = torch.multinomial(self.weights(progress), n, replacement=True, generator=generator)
        choice = torch.rand(n, generator=generator, device=stage.device)
        whole, none = torch.full_like(stage, self.horizon), torch.zeros_like(stage)
        known, failed = self.solutions.rates()
        # Where the policy succeeds in its own way it should go on so: what is imitated gets less.
        replayed = choice < (REPLAYED * (FAILING * known * failed).clamp_max(1.0)).to(stage.device)[stage]
        tried = choice >= 1 - (TRIED * (FAILING * failed).clamp_max(1.0)).to(stage.device)[stage]
        return Draw(
            stage=stage,
            own_tokens=torch.where(replayed, none, whole),
            explore=torch.where(tried, BLIND, 0.0),
            delay=none,
            reach=whole,
        )

    def problems(self, task: AnyTask, draw: Draw, generator: torch.Generator, split: Split) -> Problems:
        problems: Problems = task.sample(draw.stage, generator, split)
        table, device = self.solutions, draw.stage.device
        table.fill(task, split)
        seed = int(torch.randint(2**31, (), generator=generator, device=device))
        generator = torch.Generator().manual_seed(seed)
        if self.config.search:
            opened = (1 - self.success[: int(self.opened)]).clamp_min(0.01).cpu()
            stage = int(torch.multinomial(opened, 1, generator=generator))
            self.actions[stage] += self._search(task, stage).turn(generator)
        for stage in range(int(self.opened)):
            here, known, unknown = draw.stage.cpu() == stage, table.known(stage), table.unknown(stage)
            failed = known[table.failed[stage, known]]
            unsolved, pooled = torch.cat([unknown, failed]), torch.rand(len(draw), generator=generator) < POOLED
            replayed, tried = (draw.own_tokens == 0).cpu(), (draw.explore > 0).cpu()
            every = torch.arange(len(table.pools[stage]))
            for chosen, pool in ((replayed, failed), (tried, unsolved), (~replayed & ~tried & pooled, every)):
                rows = (here & chosen).nonzero()[:, 0]
                if len(rows) and len(pool):
                    which = pool[torch.randint(len(pool), (len(rows),), generator=generator)]
                    problems = problems.put(rows.to(device), table.pools[stage][which].to(device))
        return problems

    def program(self, task: AnyTask, problems: Problems) -> Tensor:
        return self.solutions.lookup(problems.to("cpu"), task.spec.end).to(problems.stage.device)

    def learn(self, task: AnyTask, rollout: Rollout, generator: torch.Generator) -> None:
        table, problems = self.solutions, rollout.problems.to("cpu")
        rows, success = table.rows(problems), rollout.success.cpu()
        own = (rows >= 0) & rollout.loss_mask[0].cpu()
        table.tried(problems.stage[own], rows[own], success[own])
        won = (own & success).nonzero()[:, 0]
        actions = rollout.action.cpu()[:, won]
        programs = torch.full((len(won), self.horizon), task.spec.end)
        programs[:, : len(actions)] = torch.where(rollout.running.cpu()[:, won], actions, task.spec.end).t()
        seed = int(torch.randint(2**31, (), generator=generator, device=rollout.success.device))
        for stage in range(int(self.opened)):
            here = problems.stage[won] == stage
            if not bool(here.any()):
                continue
            if self.config.search:
                chance = torch.Generator().manual_seed(seed + stage)
                self.actions[stage] += self._search(task, stage).offer(rows[won][here], programs[here], chance)
            else:  # to try them on other problems would be a search
                same = torch.zeros_like(rows[won][here])
                table.store(stage, rows[won][here], programs[here], same, task.spec.end, POLICY)

    def describe(self) -> list[str]:
        words = super().describe()
        for stage in range(int(self.opened)):
            total, own, searched = self.solutions.counts(stage)
            words[stage] = f"{own}+{searched}/{total} known"
        return words

    def summary(self, task: AnyTask) -> dict[str, Any]:
        names = ("problems", "found_by_policy", "found_by_search")
        counts = [dict(zip(names, self.solutions.counts(s), strict=True)) for s in range(len(self.lengths))]
        return {
            stage: {**count, "search_actions": actions}
            for stage, count, actions in zip(task.spec.stages, counts, self.actions.tolist(), strict=False)
        }

    def _search(self, task: AnyTask, stage: int) -> ProblemSearch:
        if stage not in self._searches:
            self._searches[stage] = ProblemSearch(task, self.solutions, stage)
        return self._searches[stage]
