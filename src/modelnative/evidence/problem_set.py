"""The problems of an evaluation: every problem of a stage, or a sample where there are too many to list."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from modelnative.errors import UserError
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, Split

CHUNK = 1 << 11  # episodes played at once: large enough to be fast, small enough for the caches
MAX_CONTEXT_TOKENS = 1 << 25  # kept in memory by `ProblemSet.whole`


@dataclass(frozen=True)
class ProblemSet:
    """The problems of a stage and split: all of them, or a sample.

    Problems are not stored. Every pass lists or draws them again; the same seed gives the same problems.

    Attributes:
        task, stage, split: where the problems come from.
        listed: whether the set holds every problem.
        count: number of problems.
    """

    task: AnyTask
    stage: int
    split: Split
    listed: bool
    count: int

    @classmethod
    @functools.lru_cache(maxsize=256)
    def of(cls, task: AnyTask, stage: int, split: Split, limit: int, sample: int | None = None) -> ProblemSet:
        """Every problem if there are at most `limit`, otherwise `sample` of them (by default `limit`).

        A task without `enumerate`, or with endless problems, is sampled.
        """
        sample = limit if sample is None else sample
        count = 0
        try:
            for chunk in task.enumerate(stage, split, CHUNK):
                count += len(chunk)
                if count > limit:
                    return cls(task, stage, split, False, sample)
        except UserError:
            return cls(task, stage, split, False, sample)
        return cls(task, stage, split, True, count)

    def chunks(self, seed: int = 0) -> Iterator[Problems]:
        """The problems, at most `CHUNK` at a time."""
        if self.listed:
            yield from self.task.enumerate(self.stage, self.split, CHUNK)
            return
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, self.count, CHUNK):
            stage = torch.full((min(CHUNK, self.count - start),), self.stage)
            yield self.task.sample(stage, generator, self.split)

    def whole(self) -> Problems:
        """All problems in one batch. Of a sample, no more than fit into `MAX_CONTEXT_TOKENS`."""
        limit = max(1000, MAX_CONTEXT_TOKENS // self.task.spec.context_length)
        kept: list[Problems] = []
        for chunk in self.chunks():
            kept.append(chunk)
            if not self.listed and sum(map(len, kept)) >= limit:
                break
        return Batch.cat(kept)


def unseen_problems(task: AnyTask, stage: int, n: int) -> Problems:
    """The same n problems of a stage each time, held-out ones if the stage has any."""
    return drawn_problems(task, stage, n, "heldout", 0)


def drawn_problems(task: AnyTask, stage: int, n: int, split: Split, seed: int) -> Problems:
    """n problems of a stage, drawn from a split, or from all where the split has none."""
    stages = torch.full((n,), stage)
    try:
        return task.sample(stages, torch.Generator().manual_seed(seed), split)
    except UserError:
        return task.sample(stages, torch.Generator().manual_seed(seed), "all")


def problem_text(task: AnyTask, problems: Problems, i: int) -> str:
    """Problem i as text: `task.render`, or the tokens of its context where the task does not define `render`."""
    try:
        return task.render(problems, i)
    except UserError:
        tokens = problems.context[i].tolist()
        return " ".join(task.spec.vocabulary[token] for token in tokens if token != task.spec.end)
