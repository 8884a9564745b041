"""What a program calls; the commands call nothing else."""

from modelnative.api.evidence import certify, evaluate, explain, tutorial
from modelnative.api.speed import bench, profile
from modelnative.api.sweeps import SweepResult, sweep
from modelnative.api.training import Agent, load, recipe, resume, train
from modelnative.tasks import make_task as make

__all__ = [
    "Agent",
    "SweepResult",
    "bench",
    "certify",
    "evaluate",
    "explain",
    "load",
    "make",
    "profile",
    "recipe",
    "resume",
    "sweep",
    "train",
    "tutorial",
]
