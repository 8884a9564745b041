"""Every field of a training: its type, range, default and help text. Importing this does not import torch."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from modelnative.errors import unknown
from modelnative.policies.config import PolicyConfig
from modelnative.policies.config_model import (
    ConfigError,
    ConfigModel,
    name_in,
    name_schema,
    not_allowed,
)
from modelnative.policies.config_model import with_fields as with_fields
from modelnative.policies.registry import CORES
from modelnative.training.registry import ALGORITHMS as ALGORITHMS
from modelnative.training.registry import CURRICULA as CURRICULA
from modelnative.training.registry import LOGGERS as LOGGERS

CoreName = Annotated[str, AfterValidator(name_in(CORES)), Field(json_schema_extra=name_schema(CORES))]
AlgorithmName = Annotated[str, AfterValidator(name_in(ALGORITHMS)), Field(json_schema_extra=name_schema(ALGORITHMS))]
CurriculumName = Annotated[str, AfterValidator(name_in(CURRICULA)), Field(json_schema_extra=name_schema(CURRICULA))]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Updates = Annotated[int, Field(ge=1, le=1_000_000_000)]
NonNegative = Annotated[float, Field(ge=0, le=1_000_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]


class LossConfig(ConfigModel):
    """The loss, and the gradient steps on each rollout."""

    epochs: int = Field(default=1, ge=1, le=1000)
    """Number of passes over each rollout."""
    minibatches: Count = 6
    """Number of gradient steps per pass. At most the number of episodes."""
    clip_low: FractionBelowOne = 0.2
    """Clip the probability ratio below 1 - clip_low. 0 for both turns clipping off."""
    clip_high: NonNegative = 1.0
    """Clip the probability ratio above 1 + clip_high (asymmetric clipping as in DAPO, Yu et al., 2025)."""
    gamma: PositiveFraction = 1.0
    """Discount factor."""
    gae_lambda: Fraction = 0.95
    """Lambda of generalized advantage estimation (ppo, a2c)."""
    num_generations: int = Field(default=16, ge=2, le=10_000_000)
    """Number of episodes per problem in a group (grpo, rloo). Must divide the number of episodes."""
    scale_rewards: bool = True
    """Divide the advantages by the standard deviation of their group (grpo)."""
    value_weight: NonNegative = 0.5
    """Weight of the squared error of the value estimate (ppo, a2c)."""
    reward_scale: NonNegative = 0.0
    """Multiply rewards by this for the critic, which predicts numbers near 1 best (ppo, a2c). 0: divide them by a power
    of ten that each batch decides, where returns are above 31 or below 0.03."""
    entropy_weight: NonNegative = 0.01
    """Weight of the entropy bonus. Decays when the worst stage's failure rate falls below
    optimizer.anneal_below_failure."""
    imitation_weight: NonNegative = 1.0
    """Weight of self-imitation learning on explored tokens whose return exceeded the estimate (Oh et al., 2018)."""
    hint_weight: NonNegative = 0.0
    """Weight of the imitation loss on hint tokens. 0 excludes them from the loss."""


class OptimizerConfig(ConfigModel):
    """The Adam optimizer, with gradient clipping."""

    learning_rate: float = Field(default=0.01, gt=0, le=1000)
    """Initial learning rate."""
    anneal_below_failure: PositiveFraction = 0.1
    """Start decaying the learning rate when the worst stage's failure rate falls below this. The learning rate is
    proportional to the failure rate from there on, the entropy bonus to its square."""
    min_lr_fraction: Fraction = 0.03
    """Lower bound of the learning rate as a fraction of the initial one. The entropy bonus is bounded by the square of
    this fraction."""
    max_grad_norm: float = Field(default=0.5, gt=0, le=1_000_000)
    """Clip the norm of the gradient to this."""


class CurriculumConfig(ConfigModel):
    """The choice of problems and hints."""

    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Success rate at which curriculum hints shortens the hint by a token, and curriculum threshold adds the next stage
    (its recipe: 0.9)."""
    frontier: PositiveFraction = 0.7
    """Fraction of episodes with the shortest hint that the stage allows; the others have longer hints (curriculum
    hints)."""
    explore: FractionBelowOne = 0.3
    """Probability of a uniformly random action: at the first token after the hint (curriculum hints), or at one random
    token of the episode (the others)."""
    min_stage_weight: PositiveFraction = 0.08
    """Sampling weight of solved stages. Failing stages have weight 1."""
    search_budget: int = Field(default=400_000_000, ge=1, le=10**12)
    """Actions that the search for procedures may play for each stage (curriculum discover)."""
    search: bool = True
    """Let a program search solve training problems, too. Without it, only what the policy solves by itself is imitated
    (curriculum self-imitation)."""
    success_ema: FractionBelowOne = 0.8
    """Decay of the moving average of success rates that the curriculum uses."""


class TrainConfig(ConfigModel):
    """One training. The defaults are those of the default recipe; `recipe` returns the defaults for other choices."""

    task: str = Field(default="arithmetic", min_length=1)
    """Name of a task (see `modelnative tasks`), several joined by +, module:Class, or gymnasium:ID (CartPole-v1)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the task."""
    core: CoreName = Field(
        default="gru",
        description=f"Core of the policy: {', '.join(CORES)} (no memory, as a baseline), or module:Class of your own.",
    )
    algorithm: AlgorithmName = Field(
        default="ppo", description=f"Algorithm: {', '.join(ALGORITHMS)}, or module:Name of your own."
    )
    curriculum: CurriculumName = Field(
        default="hints",
        description="Curriculum: hints (reverse curriculum; the oracle writes the first tokens), discover (a program "
        "search finds what hints write, without the oracle), self-imitation (imitates programs with which the "
        "policy or a program search solved problems, without the oracle), or without any of this: "
        f"{', '.join(list(CURRICULA)[3:])}; or module:Class of your own.",
    )
    stages: int = Field(default=0, ge=0, le=100_000)
    """Train on the first N stages of the task (0 = all). The others are only tested."""
    split: Literal["train", "all"] = "train"
    """Problems to train on: train (the held-out fifth is never used) or all."""
    init: str = ""
    """Run folder whose best weights the policy starts from (default: random weights)."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of weights, problems and actions."""
    episodes: Count = 512
    """Number of episodes per update."""
    updates: Updates = 2000
    """Maximum number of updates. Training ends earlier once all training problems are solved."""
    minutes: NonNegative = 0.0
    """Maximum training time in minutes (0 = no limit)."""
    threads: int = Field(default=0, ge=0, le=1024)
    """Number of CPU threads (0 = one per core, at most 8). The result does not depend on it."""
    device: str = Field(default="cpu", min_length=1)
    """Device of the policy: cpu, cuda, cuda:1, ..."""
    evaluate_every: Updates = 10
    """Updates between evaluations. An evaluation plays 256 training problems of each stage greedily."""
    target_success: PositiveFraction = 0.994
    """Success rate with sampled actions that every stage must reach before all training problems are checked
    greedily."""
    checkpoint_every: Updates = 25
    """Updates between checkpoints."""
    keep_checkpoints: int = Field(default=3, ge=1, le=10_000)
    """Number of checkpoints to keep, the newest. The studio plays one problem by all of them."""
    alarms: Literal["off", "warn", "stop"] = "warn"
    """Audits of updates 1, 2 and every tenth: off, warn (say what is wrong and go on) or stop (end the training)."""
    log: str = ""
    """Send the metrics to these loggers, too, separated by commas: tensorboard, wandb, trackio, mlflow."""
    policy: PolicyConfig = PolicyConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    curricula: CurriculumConfig = CurriculumConfig()

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name, value in options.items():
            try:
                json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
            except (TypeError, ValueError, RecursionError):
                raise ConfigError((name,), not_allowed(value, "what JSON can hold, numbers finite")) from None
        return options

    @field_validator("log")
    @classmethod
    def _check_log(cls, log: str) -> str:
        names = [name.strip() for name in log.split(",")] if log else []
        for name in names:
            if name not in LOGGERS:
                raise ConfigError((), unknown("value", name, LOGGERS))
        return ",".join(dict.fromkeys(names))

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        heads, width = self.policy.heads, self.policy.width
        if self.core == "transformer" and width % heads:
            raise ConfigError(("policy", "heads"), not_allowed(heads, f"a divisor of policy.width ({width})"))
        generations = self.loss.num_generations
        if self.algorithm in ("grpo", "rloo") and self.episodes % generations:
            expected = f"a divisor of episodes ({self.episodes})"
            raise ConfigError(("loss", "num_generations"), not_allowed(generations, expected))
        if self.loss.minibatches > self.episodes:
            expected = f"from 1 to the number of episodes ({self.episodes})"
            raise ConfigError(("loss", "minibatches"), not_allowed(self.loss.minibatches, expected))
        return self
