"""The speed of a training and its parts, and of the matrix product that limits it."""

from __future__ import annotations

import time

import torch

from modelnative.policies.config import PolicyConfig
from modelnative.tasks.contract.task import TaskSpec
from modelnative.training.trainer import Trainer

ROWS = 4096  # of the left matrix: about what one thread multiplies at a time during training
CHUNKS = 10  # parts of a measurement, each with its own rate
MIN_UPDATES = 3  # in a measurement, however long they take
PARTS = ("rollout", "update", "training")


def matmul_rates(width: int, seconds: float, chunks: int = CHUNKS) -> list[float]:
    """GFLOP/s of the float32 product of 4096 × width by width × 3 width, one rate for each chunk.

    This product dominates a GRU, and its operands stay in the caches, so that no network of this width is faster.
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


def training_rates(trainer: Trainer, seconds: float) -> dict[str, list[float]]:
    """Train for some seconds, and at least three updates, after one update that is not counted.

    Args:
        trainer: alone, or one of several processes that train together; the steps of all processes count.
        seconds: by the clock of the first process.

    Returns:
        For each of `PARTS`, steps per second of every update. `training` is the whole update, which also includes
        metrics and the occasional greedy evaluation.
    """
    trainer.update()
    rates: dict[str, list[float]] = {part: [] for part in PARTS}
    start = time.perf_counter()
    while len(rates["training"]) < MIN_UPDATES or _leader_seconds(trainer, start) < seconds:
        steps_before, update_start = trainer.steps, time.perf_counter()
        timing = trainer.update().timing
        elapsed, steps = time.perf_counter() - update_start, trainer.steps - steps_before
        rates["rollout"].append(steps / (timing.seconds * timing.rollout_share))
        rates["update"].append(steps / (timing.seconds * timing.update_share))
        rates["training"].append(steps / elapsed)
    return rates


def _leader_seconds(trainer: Trainer, start: float) -> float:
    """Seconds since `start` by the clock of the first process."""
    return trainer.group.broadcast_numbers([time.perf_counter() - start])[0]


def forward_flops(spec: TaskSpec, core: str, policy: PolicyConfig) -> int | None:
    """FLOP of the matrix products in one step's forward pass, or None for cores other than gru.

    For a GRU of width w with L layers, a vocabulary of V tokens and a context of C:

        L · 2·w·3w          recurrent products
        + (L - 1) · 2·w·3w  input products; those of the first layer are looked up in a table
        + 2·w·(V + 1 + C + V)  heads: tokens, value, copying by position and by content; 2·w·(V + 1) without a copy head

    Element-wise operations, attention to the context, embeddings and the table are not counted. The cost of the table
    does not depend on the number of steps.

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
    """FLOP per step of rollout, update and training, from those of a forward pass.

    A backward pass costs two forward passes, and each epoch has one of each.

    Example:
        >>> flops(10, epochs=2)
        {'rollout': 10, 'update': 60, 'training': 70}
    """
    return {"rollout": forward, "update": 3 * epochs * forward, "training": (1 + 3 * epochs) * forward}
