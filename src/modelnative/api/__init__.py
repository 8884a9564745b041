"""What a program calls; the commands call nothing else."""

from modelnative.api.evidence import evaluate, explain, report
from modelnative.api.speed import bench, profile
from modelnative.api.sweeps import SweepResult, sweep
from modelnative.api.training import Agent, load, recipe, resume, train
from modelnative.evidence.certify import certify
from modelnative.evidence.tutorial_comparison import compare_tutorial as tutorial
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
    "report",
    "resume",
    "sweep",
    "train",
    "tutorial",
]
