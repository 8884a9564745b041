"""Train, verify and understand model-native agents: one network that plans, remembers and uses tools by itself.

Names are imported when they are first used, so that `import modelnative` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelnative.api import (
        Agent,
        bench,
        certify,
        evaluate,
        explain,
        load,
        make_task,
        profile,
        resume,
        resume_sweep,
        sweep,
        train,
        train_seeds,
    )
    from modelnative.errors import UserError
    from modelnative.tasks.tools.task import ToolTask
    from modelnative.tasks.tools.tool import tool
    from modelnative.training.config import TrainConfig
    from modelnative.training.recipes import recipe

__version__ = "0.1.0"

_API = (
    *(
        "Agent",
        "bench",
        "certify",
        "evaluate",
        "explain",
        "load",
        "make_task",
        "profile",
        "resume",
        "resume_sweep",
    ),
    *("sweep", "train", "train_seeds"),
)
_HOMES = {
    **dict.fromkeys(_API, "modelnative.api"),
    "TrainConfig": "modelnative.training.config",
    "recipe": "modelnative.training.recipes",
    "UserError": "modelnative.errors",
    "ToolTask": "modelnative.tasks.tools.task",
    "tool": "modelnative.tasks.tools.tool",
}

__all__ = [
    "Agent",
    "ToolTask",
    "TrainConfig",
    "UserError",
    "bench",
    "certify",
    "evaluate",
    "explain",
    "load",
    "make_task",
    "profile",
    "recipe",
    "resume",
    "resume_sweep",
    "sweep",
    "tool",
    "train",
    "train_seeds",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'modelnative' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
