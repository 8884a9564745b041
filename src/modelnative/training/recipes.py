"""Recipes: the values that work for a task, a core, an algorithm and a curriculum. Free of torch."""

from __future__ import annotations

from typing import Any

from modelnative.errors import choose
from modelnative.policies.config import CORES, PolicyConfig
from modelnative.training.config import (
    ALGORITHMS,
    CURRICULA,
    CurriculumConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
)

# Measured by benchmarks/learning.py, and for other tasks than arithmetic by benchmarks/families.py. An on-policy
# gradient step without clipping must be smaller.
LOSS_RECIPES: dict[str, dict[str, Any]] = {
    "ppo": {"epochs": 1, "minibatches": 6},
    "a2c": {"epochs": 1, "clip_low": 0.0, "clip_high": 0.0},
    "grpo": {"value_weight": 0.0},
    "rloo": {"value_weight": 0.0, "epochs": 1, "clip_low": 0.0, "clip_high": 0.0},
    "reinforce": {"value_weight": 0.0, "epochs": 1, "clip_low": 0.0, "clip_high": 0.0},
}
LEARNING_RATES = {"gru": 3e-3, "tutorial-gru": 1e-2, "mingru": 3e-3, "memoryless": 2e-3, "transformer": 1e-3}
FASTER = {("arithmetic", "gru"): 1e-2}  # what is learned as surely with larger steps, in less time
STEP_FACTORS = {"ppo": 1.0, "a2c": 0.3, "grpo": 0.5, "rloo": 0.3, "reinforce": 0.3}
# What `modelnative bench` changes: a batch that is worth sharing among processes, one pass over it, and no hints, whose
# forced tokens would be steps that nothing is learned from.
BENCH: dict[str, Any] = {"curriculum": "uniform", "episodes": 8192, "threads": 1, "loss": {"epochs": 1}}
UPDATES = {"ppo": 2000, "a2c": 6000, "grpo": 3000, "rloo": 6000, "reinforce": 6000}


def recipe(
    task: str = "arithmetic", core: str = "gru", algorithm: str = "ppo", curriculum: str = "hints"
) -> TrainConfig:
    """The configuration that works for this choice; change its fields with `dataclasses.replace` or `with_fields`.

    Raises:
        UserError: a name is unknown; the message has the nearest one.

    Example:
        >>> recipe(algorithm="grpo").loss.value_weight
        0.0
    """
    choose("core", core, CORES)
    choose("algorithm", algorithm, ALGORITHMS)
    choose("curriculum", curriculum, CURRICULA)
    return TrainConfig(
        task=task,
        core=core,
        algorithm=algorithm,
        curriculum=curriculum,
        updates=UPDATES[algorithm],
        policy=PolicyConfig(copy_head=core != "tutorial-gru"),
        loss=LossConfig(**LOSS_RECIPES[algorithm]),
        curricula=CurriculumConfig(threshold=0.9 if curriculum == "threshold" else 0.5),
        optimizer=OptimizerConfig(
            learning_rate=FASTER.get((task, core), LEARNING_RATES[core]) * STEP_FACTORS[algorithm]
        ),
    )
