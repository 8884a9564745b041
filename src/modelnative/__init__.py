"""Train, verify and inspect agents that are one network, learned end to end by reinforcement learning.

Names are imported when they are first used, so that `import modelnative` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors, to which `as` means that a name is public
    from modelnative.api import make as make
    from modelnative.api.evidence import certify as certify
    from modelnative.api.evidence import clinic as clinic
    from modelnative.api.evidence import evaluate as evaluate
    from modelnative.api.evidence import explain as explain
    from modelnative.api.evidence import inspect as inspect
    from modelnative.api.evidence import plot as plot
    from modelnative.api.evidence import report as report
    from modelnative.api.evidence import tutorial as tutorial
    from modelnative.api.sharing import export as export
    from modelnative.api.sharing import push as push
    from modelnative.api.sharing import transcripts as transcripts
    from modelnative.api.speed import bench as bench
    from modelnative.api.speed import profile as profile
    from modelnative.api.sweeps import SweepResult as SweepResult
    from modelnative.api.sweeps import compare as compare
    from modelnative.api.sweeps import sweep as sweep
    from modelnative.api.training import Agent as Agent
    from modelnative.api.training import load as load
    from modelnative.api.training import recipe as recipe
    from modelnative.api.training import resume as resume
    from modelnative.api.training import train as train
    from modelnative.bridges.gymnasium import Env as Env
    from modelnative.bridges.gymnasium import VectorEnv as VectorEnv
    from modelnative.bridges.registration import register_envs as register_envs
    from modelnative.errors import UserError as UserError
    from modelnative.evidence.inspect import Inspection as Inspection
    from modelnative.evidence.inspect import StageInspection as StageInspection
    from modelnative.evidence.sharing import StageUnits as StageUnits
    from modelnative.policies.config import PolicyConfig as PolicyConfig
    from modelnative.policies.contract import Policy as Policy
    from modelnative.policies.contract import PolicyOutput as PolicyOutput
    from modelnative.policies.core import Core as Core
    from modelnative.policies.policy import TokenPolicy as TokenPolicy
    from modelnative.runs.events import Checkpointed as Checkpointed
    from modelnative.runs.events import Finished as Finished
    from modelnative.runs.events import Interrupted as Interrupted
    from modelnative.runs.events import Verified as Verified
    from modelnative.studio.server.serve import serve as serve
    from modelnative.sweeps.comparison import Comparison as Comparison
    from modelnative.tasks.contract.board import BoardField as BoardField
    from modelnative.tasks.contract.calls import Argument as Argument
    from modelnative.tasks.contract.calls import Call as Call
    from modelnative.tasks.contract.calls import Refusal as Refusal
    from modelnative.tasks.contract.check import check_task as check_task
    from modelnative.tasks.contract.episode import Episode as Episode
    from modelnative.tasks.contract.episode import Shown as Shown
    from modelnative.tasks.contract.task import Problems as Problems
    from modelnative.tasks.contract.task import State as State
    from modelnative.tasks.contract.task import Step as Step
    from modelnative.tasks.contract.task import Task as Task
    from modelnative.tasks.contract.task import TaskSpec as TaskSpec
    from modelnative.tasks.mixture.task import Mixture as Mixture
    from modelnative.tasks.tools.task import ToolTask as ToolTask
    from modelnative.tasks.tools.tool import tool as tool
    from modelnative.training.algorithm import Algorithm as Algorithm
    from modelnative.training.audit import Alarm as Alarm
    from modelnative.training.audit import Audit as Audit
    from modelnative.training.audit import audit as audit
    from modelnative.training.config import CurriculumConfig as CurriculumConfig
    from modelnative.training.config import LossConfig as LossConfig
    from modelnative.training.config import OptimizerConfig as OptimizerConfig
    from modelnative.training.config import TrainConfig as TrainConfig
    from modelnative.training.config import with_fields as with_fields
    from modelnative.training.curriculum import Curriculum as Curriculum
    from modelnative.training.curriculum import Draw as Draw
    from modelnative.training.events import Alarmed as Alarmed
    from modelnative.training.events import Callback as Callback
    from modelnative.training.events import Event as Event
    from modelnative.training.events import Searched as Searched
    from modelnative.training.events import Started as Started
    from modelnative.training.events import Updated as Updated
    from modelnative.training.metrics import Metrics as Metrics
    from modelnative.training.rollout import Rollout as Rollout
    from modelnative.training.trainer import Trainer as Trainer

__version__ = "0.1.0"

_MODULES = {
    "api": "make",
    "api.evidence": "certify clinic evaluate explain inspect plot report tutorial",
    "api.sharing": "export push transcripts",
    "api.speed": "bench profile",
    "api.sweeps": "SweepResult compare sweep",
    "api.training": "Agent load recipe resume train",
    "bridges.gymnasium": "Env VectorEnv",
    "bridges.registration": "register_envs",
    "errors": "UserError",
    "evidence.inspect": "Inspection StageInspection",
    "evidence.sharing": "StageUnits",
    "policies.config": "PolicyConfig",
    "policies.contract": "Policy PolicyOutput",
    "policies.core": "Core",
    "policies.policy": "TokenPolicy",
    "runs.events": "Checkpointed Finished Interrupted Verified",
    "sweeps.comparison": "Comparison",
    "studio.server.serve": "serve",
    "tasks.contract.board": "BoardField",
    "tasks.contract.calls": "Argument Call Refusal",
    "tasks.contract.check": "check_task",
    "tasks.contract.episode": "Episode Shown",
    "tasks.contract.task": "Problems State Step Task TaskSpec",
    "tasks.mixture.task": "Mixture",
    "tasks.tools.task": "ToolTask",
    "tasks.tools.tool": "tool",
    "training.algorithm": "Algorithm",
    "training.config": "CurriculumConfig LossConfig OptimizerConfig TrainConfig with_fields",
    "training.curriculum": "Curriculum Draw",
    "training.audit": "Alarm Audit audit",
    "training.events": "Alarmed Callback Event Searched Started Updated",
    "training.metrics": "Metrics",
    "training.rollout": "Rollout",
    "training.trainer": "Trainer",
}
_HOMES = {name: f"modelnative.{module}" for module, names in _MODULES.items() for name in names.split()}

if not TYPE_CHECKING:  # a type checker would take a list that it cannot read for an empty one
    __all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'modelnative' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
