"""The algorithms and curricula by name. Importing this does not import torch."""

from __future__ import annotations

ALGORITHMS: dict[str, str] = {
    "ppo": "modelnative.training.algorithms.ppo:PPO",
    "a2c": "modelnative.training.algorithms.a2c:A2C",
    "grpo": "modelnative.training.algorithms.grpo:GRPO",
    "rloo": "modelnative.training.algorithms.rloo:RLOO",
    "reinforce": "modelnative.training.algorithms.reinforce:Reinforce",
}
CURRICULA: dict[str, str] = {
    "hints": "modelnative.training.curricula.hints:Hints",
    "discover": "modelnative.training.curricula.discover:Discover",
    "uniform": "modelnative.training.curricula.uniform:Uniform",
    "threshold": "modelnative.training.curricula.threshold:Threshold",
    "learnability": "modelnative.training.curricula.learnability:Learnability",
    "regret": "modelnative.training.curricula.regret:Regret",
    "progress": "modelnative.training.curricula.progress:LearningProgress",
    "bandit": "modelnative.training.curricula.bandit:Bandit",
    "tutorial": "modelnative.training.curricula.tutorial:TutorialSchedule",
}
