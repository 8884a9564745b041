"""Where the problems of an evaluation come from: all there are, or a sample of what is too much to list."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from modelnative.errors import UserError
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, Split

CHUNK = 1 << 11  # episodes played at once: large enough to be fast, small enough for the caches
NUMBERS = 1 << 25  # of contexts that are kept at once


@dataclass(frozen=True)
class Source:
    """The problems of a stage and split: all of them if they are few enough, else some drawn.

    Nothing is kept: every pass lists or draws them anew, the same ones as long as the seed is.

    Attributes:
        listed: they are all.
        count: how many they are.
    """

    task: AnyTask
    stage: int
    split: Split
    listed: bool
    count: int

    @classmethod
    @functools.lru_cache(maxsize=256)
    def of(cls, task: AnyTask, stage: int, split: Split, limit: int, drawn: int | None = None) -> Source:
        """All of them if they are at most `limit`, else `drawn` (by default `limit`) of them."""
        count, drawn = 0, limit if drawn is None else drawn
        try:
            for chunk in task.enumerate(stage, split, CHUNK):
                count += len(chunk)
                if count > limit:
                    return cls(task, stage, split, False, drawn)
        except UserError:
            return cls(task, stage, split, False, drawn)
        return cls(task, stage, split, True, count)

    def chunks(self, seed: int = 0) -> Iterator[Problems]:
        """The problems, a few thousand at a time."""
        if self.listed:
            yield from self.task.enumerate(self.stage, self.split, CHUNK)
            return
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, self.count, CHUNK):
            stage = torch.full((min(CHUNK, self.count - start),), self.stage)
            problems: Problems = self.task.sample(stage, generator, self.split)
            yield problems

    def whole(self) -> Problems:
        """All of them at once, or of drawn ones as many as fit in `NUMBERS`."""
        most = max(1000, NUMBERS // self.task.spec.context_length)
        kept: list[Problems] = []
        for chunk in self.chunks():
            kept.append(chunk)
            if not self.listed and sum(map(len, kept)) >= most:
                break
        return Batch.cat(kept)
