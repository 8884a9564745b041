"""The tasks by name in Gymnasium's registry."""

from __future__ import annotations

import gymnasium

from modelnative.tasks import TASKS

BRIDGE = "modelnative.bridges.gymnasium"


def environment_id(task: str) -> str:
    """Return the id of a task's environment.

    Example:
        >>> environment_id("arithmetic")
        'modelnative/Arithmetic-v0'
    """
    return f"modelnative/{task.capitalize()}-v0"


def register_envs() -> None:
    """Register every task with Gymnasium; what is registered already stays.

    Importing `modelnative.bridges.gymnasium` does it too. Gymnasium, since 1.0, looks for no plug-ins by itself.

    Example:
        >>> register_envs()
        >>> env = gymnasium.make("modelnative/Recall-v0", stages=["L1"])
        >>> envs = gymnasium.make_vec("modelnative/Recall-v0", num_envs=8, stages=["L1"], vectorization_mode=None)
        >>> type(env.unwrapped).__name__, type(envs).__name__
        ('Env', 'VectorEnv')
    """
    for task in TASKS:
        name = environment_id(task)
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point=f"{BRIDGE}:Env",
                vector_entry_point=f"{BRIDGE}:VectorEnv",
                kwargs={"task": task},
                reward_threshold=1.0,
            )
