"""Recipes: the values that work for a task, a core, an algorithm and a curriculum.

A core, an algorithm and a curriculum bring their own values, each as the attribute `recipe` of its class. They were
measured by benchmarks/learning.py, and for other tasks than arithmetic by benchmarks/families.py.
"""

from __future__ import annotations

from typing import Any

from modelnative.policies.registry import CORES, named
from modelnative.tasks.importing import library_of
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.registry import ALGORITHMS, CURRICULA

# Where a task is learned as surely with larger steps, in less time, by every algorithm that is shipped.
TASK_LEARNING_RATES = {("arithmetic", "gru"): 1e-2, ("arithmetic", "transformer"): 2e-3, ("arithmetic", "mingru"): 6e-3}
# Tasks of other libraries, by the library: no oracle, long episodes, rewards on the way.
LIBRARY_RECIPES: dict[str, dict[str, Any]] = {
    "gymnasium": {
        "curriculum": "uniform",
        "episodes": 32,
        "updates": 100,
        "policy": {"copy_head": False},
        "loss": {"gamma": 0.99, "epochs": 8, "minibatches": 4, "entropy_weight": 0.001},
        "optimizer": {"learning_rate": 3e-3},
    },
}
# What `modelnative bench` changes: a batch that is worth sharing among processes, one pass over it, and no hints, whose
# tokens would be steps that nothing is learned from.
BENCH: dict[str, Any] = {"curriculum": "uniform", "episodes": 8192, "threads": 1, "loss": {"epochs": 1}}


def recipe(
    task: str = "arithmetic", algorithm: str = "ppo", core: str = "gru", curriculum: str | None = None
) -> TrainConfig:
    """The configuration that works for this choice; change its fields with `with_fields`.

    Each name is a registered one, or `module:Name` of your own. The curriculum is by default `hints`, and `uniform` for
    tasks of other libraries, which have no oracle.

    Raises:
        UserError: a name is unknown; the message has the nearest one.

    Example:
        >>> recipe(algorithm="grpo").loss.value_weight
        0.0
    """
    library = LIBRARY_RECIPES.get(library_of(task), {})
    curriculum = curriculum or library.get("curriculum", "hints")
    names = (("core", core, CORES), ("algorithm", algorithm, ALGORITHMS), ("curriculum", curriculum, CURRICULA))
    kinds = {field: named(field, name, registry) for field, name, registry in names}
    config = TrainConfig(task=task, core=core, algorithm=algorithm, curriculum=curriculum)
    for kind in kinds.values():
        config = with_fields(config, getattr(kind, "recipe", {}))
    config = with_fields(config, {name: value for name, value in library.items() if name != "curriculum"})
    rate = TASK_LEARNING_RATES.get((task, core))
    if rate is None or algorithm not in ALGORITHMS:
        rate = (rate or config.optimizer.learning_rate) * getattr(kinds["algorithm"], "learning_rate_factor", 1.0)
    return with_fields(config, {"optimizer": {"learning_rate": rate}})
