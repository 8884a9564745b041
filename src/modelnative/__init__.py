"""Train, verify and inspect agents that are one network, learned end to end by reinforcement learning.

Names are imported when they are first used, so that `import modelnative` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelnative.api import (
        Agent,
        SweepResult,
        bench,
        certify,
        evaluate,
        explain,
        load,
        make,
        profile,
        recipe,
        resume,
        sweep,
        train,
        tutorial,
    )
    from modelnative.bridges.gymnasium import Env, VectorEnv
    from modelnative.errors import UserError
    from modelnative.policies.config import PolicyConfig
    from modelnative.policies.contract import Policy, PolicyOutput
    from modelnative.policies.core import Core
    from modelnative.policies.policy import TokenPolicy
    from modelnative.runs.events import Checkpointed, Finished, Interrupted, Verified
    from modelnative.tasks.contract.check import check_task
    from modelnative.tasks.contract.task import Problems, State, Step, Task, TaskSpec
    from modelnative.tasks.tools.task import ToolTask
    from modelnative.tasks.tools.tool import tool
    from modelnative.training.algorithm import Algorithm
    from modelnative.training.config import (
        CurriculumConfig,
        LossConfig,
        OptimizerConfig,
        TrainConfig,
        with_fields,
    )
    from modelnative.training.curriculum import Curriculum, Draw
    from modelnative.training.events import Callback, Event, Started, Updated
    from modelnative.training.metrics import Metrics
    from modelnative.training.rollout import Rollout
    from modelnative.training.trainer import Trainer

__version__ = "0.1.0"

_MODULES = {
    "api": ("Agent SweepResult bench certify evaluate explain load make profile recipe resume sweep train tutorial"),
    "bridges.gymnasium": "Env VectorEnv",
    "errors": "UserError",
    "policies.config": "PolicyConfig",
    "policies.contract": "Policy PolicyOutput",
    "policies.core": "Core",
    "policies.policy": "TokenPolicy",
    "runs.events": "Checkpointed Finished Interrupted Verified",
    "tasks.contract.check": "check_task",
    "tasks.contract.task": "Problems State Step Task TaskSpec",
    "tasks.tools.task": "ToolTask",
    "tasks.tools.tool": "tool",
    "training.algorithm": "Algorithm",
    "training.config": "CurriculumConfig LossConfig OptimizerConfig TrainConfig with_fields",
    "training.curriculum": "Curriculum Draw",
    "training.events": "Callback Event Started Updated",
    "training.metrics": "Metrics",
    "training.rollout": "Rollout",
    "training.trainer": "Trainer",
}
_HOMES = {name: f"modelnative.{module}" for module, names in _MODULES.items() for name in names.split()}

__all__ = [
    "Agent",
    "Algorithm",
    "Callback",
    "Checkpointed",
    "Core",
    "Curriculum",
    "CurriculumConfig",
    "Draw",
    "Env",
    "Event",
    "Finished",
    "Interrupted",
    "LossConfig",
    "Metrics",
    "OptimizerConfig",
    "Policy",
    "PolicyConfig",
    "PolicyOutput",
    "Problems",
    "Rollout",
    "Started",
    "State",
    "Step",
    "SweepResult",
    "Task",
    "TaskSpec",
    "TokenPolicy",
    "ToolTask",
    "TrainConfig",
    "Trainer",
    "Updated",
    "UserError",
    "VectorEnv",
    "Verified",
    "bench",
    "certify",
    "check_task",
    "evaluate",
    "explain",
    "load",
    "make",
    "profile",
    "recipe",
    "resume",
    "sweep",
    "tool",
    "train",
    "tutorial",
    "with_fields",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'modelnative' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
