"""How fast a training is, part by part, and how fast it could be: the rate of the matrix product that it is made of."""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from modelnative.policies.config import PolicyConfig
from modelnative.tasks.contract.task import TaskSpec
from modelnative.training.trainer import Trainer

ROWS = 4096  # of the left matrix: about what a thread has to multiply at a time
CHUNKS = 10  # parts of a measurement, each with a rate of its own
MIN_UPDATES = 3  # updates, however long they take: a median of fewer says little


@dataclass(frozen=True)
class Rate:
    """Something measured several times.

    Attributes:
        name: what.
        unit: of the rates, `steps/s` or `GFLOP/s`.
        processes: that worked together, each with `threads` threads of torch; the rates are of all of them.
        rates: of each repetition.
        compile_seconds: what `torch.compile` took before; 0 when eager.
    """

    name: str
    unit: str
    processes: int
    threads: int
    rates: tuple[float, ...]
    compile_seconds: float = 0.0

    @property
    def median(self) -> float:
        """The rate of the median repetition."""
        return statistics.median(self.rates)

    @property
    def spread(self) -> tuple[float, float]:
        """The rate of the slowest and of the fastest repetition."""
        return min(self.rates), max(self.rates)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `of` reads it."""
        low, high = self.spread
        return {**dataclasses.asdict(self), "median": self.median, "low": low, "high": high}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Rate:
        """What `as_dict` gave."""
        fields = {f.name: values[f.name] for f in dataclasses.fields(cls)}
        return cls(**{**fields, "rates": tuple(fields["rates"])})


def product_rates(width: int, seconds: float, chunks: int = CHUNKS) -> list[float]:
    """GFLOP/s of the float32 product of 4096 × width by width × 3 width, with torch's threads; a rate for each chunk.

    It is what a GRU computes most, and all data stays in the caches, so that no network of this width is faster.
    """
    left, right = torch.randn(ROWS, width), torch.randn(width, 3 * width)
    product = left @ right
    work = 2 * ROWS * width * 3 * width / 1e9
    rates = []
    for _ in range(chunks):
        start, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds / chunks or not count:
            torch.mm(left, right, out=product)
            count += 1
        rates.append(count * work / elapsed)
    return rates


@dataclass(frozen=True)
class TrainingRates:
    """Steps a second of every update: while it played, while it learned, and from its start to its end.

    The end is later than playing and learning: metrics and the greedy evaluation now and then are paid for, too.
    """

    rollout: tuple[float, ...]
    update: tuple[float, ...]
    training: tuple[float, ...]


def training_rates(trainer: Trainer, seconds: float) -> TrainingRates:
    """Train for so many seconds after one update that is not counted.

    Args:
        trainer: alone, or one of the processes that train together: the steps of all count.
        seconds: the first process's clock decides; three updates at least.
    """
    trainer.update()
    rollout: list[float] = []
    update: list[float] = []
    training: list[float] = []
    start = time.perf_counter()
    while len(training) < MIN_UPDATES or trainer.group.broadcast_numbers([time.perf_counter() - start])[0] < seconds:
        before, begin = trainer.steps, time.perf_counter()
        timing = trainer.update().timing
        elapsed, steps = time.perf_counter() - begin, trainer.steps - before
        rollout.append(steps / (timing.seconds * timing.rollout_share))
        update.append(steps / (timing.seconds * timing.update_share))
        training.append(steps / elapsed)
    return TrainingRates(tuple(rollout), tuple(update), tuple(training))


def forward_flops(spec: TaskSpec, core: str, policy: PolicyConfig) -> int | None:
    """Multiplications and additions of matrix products in one step's forward pass; None where it is not counted.

    For a GRU of width w with L layers, a vocabulary of V tokens and a context of C:

        L · 2·w·3w          recurrent products
        + (L - 1) · 2·w·3w  input products; the first layer's are a lookup in a table that is made once for all
        + 2·w·(V + 1 + C + V)  heads: tokens, value, copying by place and by content; 2·w·(V + 1) without a copy head

    Element-wise work, attention to the context and the embeddings are left out, and so is the table, which does not
    grow with the steps.

    Example:
        >>> from modelnative.tasks import make_task
        >>> forward_flops(make_task("arithmetic").spec, "gru", PolicyConfig())
        30080
    """
    if core != "gru":
        return None
    w, layers, vocabulary = policy.width, policy.layers or 1, len(spec.vocabulary)
    heads = vocabulary + 1 + (spec.context_length + vocabulary if policy.copy_head else 0)
    return (2 * layers - 1) * 2 * w * 3 * w + 2 * w * heads


def flops(forward: int, epochs: int) -> dict[str, int]:
    """The same of every part of a training's step: a backward pass is two forward passes, and every epoch has both.

    Example:
        >>> flops(10, epochs=2)
        {'rollout': 10, 'update': 60, 'training': 70}
    """
    return {"rollout": forward, "update": 3 * epochs * forward, "training": (1 + 3 * epochs) * forward}
