"""The algorithms, curricula and loggers by name. Importing this does not import torch."""

from __future__ import annotations

ALGORITHMS: dict[str, str] = {
    "ppo": "modelnative.training.algorithms:PPO",
    "a2c": "modelnative.training.algorithms:A2C",
    "grpo": "modelnative.training.algorithms:GRPO",
    "rloo": "modelnative.training.algorithms:RLOO",
    "reinforce": "modelnative.training.algorithms:Reinforce",
}
CURRICULA: dict[str, str] = {
    "hints": "modelnative.training.curricula:Hints",
    "discover": "modelnative.training.discovery.curriculum:Discover",
    "self-imitation": "modelnative.training.self_imitation.curriculum:SelfImitation",
    "uniform": "modelnative.training.curricula:Uniform",
    "threshold": "modelnative.training.curricula:Threshold",
    "learnability": "modelnative.training.curricula:Learnability",
    "regret": "modelnative.training.curricula:Regret",
    "progress": "modelnative.training.curricula:LearningProgress",
    "bandit": "modelnative.training.curricula:Bandit",
    "tutorial": "modelnative.training.curricula:TutorialSchedule",
}
LOGGERS = ("tensorboard", "wandb", "trackio", "mlflow")
