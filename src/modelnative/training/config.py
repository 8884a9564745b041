"""Every field of a training, and every algorithm's recipe. Free of torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from modelnative.errors import UserError, choose
from modelnative.policies.config import CORES, READERS, PolicyConfig

AlgorithmName = Literal["ppo", "a2c", "grpo", "rloo", "reinforce"]
ALGORITHMS: tuple[AlgorithmName, ...] = ("ppo", "a2c", "grpo", "rloo", "reinforce")
CurriculumName = Literal["hints", "uniform", "threshold", "learnability", "regret", "progress", "bandit", "tutorial"]
CURRICULA: tuple[CurriculumName, ...] = (
    *("hints", "uniform", "threshold", "learnability"),
    *("regret", "progress", "bandit", "tutorial"),
)


@dataclass(frozen=True)
class LossConfig:
    """From a rollout to a gradient."""

    epochs: int = 2
    """Passes over each rollout."""
    minibatches: int = 4
    """Gradient steps in a pass."""
    clip_low: float = 0.2
    """The probability ratio counts down to 1 - clip_low; both at 0 turn clipping off."""
    clip_high: float = 1.0
    """The probability ratio counts up to 1 + clip_high (asymmetric clipping: DAPO, Yu et al., 2025)."""
    gamma: float = 1.0
    """Discount."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation (ppo, a2c)."""
    num_generations: int = 16
    """Rollouts of the same problem (grpo, rloo)."""
    scale_rewards: bool = True
    """Divide grpo's advantages by the standard deviation within their group."""
    value_weight: float = 0.5
    """Weight of the squared error of the value (ppo, a2c)."""
    entropy_weight: float = 0.01
    """Weight of the entropy bonus until little is left to learn (see optimizer.anneal_below_failure)."""
    imitation_weight: float = 1.0
    """Weight of the self-imitation loss on explored tokens that did better than expected (Oh et al., 2018)."""
    hint_weight: float = 0.0
    """Weight of imitating the oracle where it writes the beginning of an episode (hints); 0 only shows it."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, with gradient clipping."""

    learning_rate: float = 5e-3
    """Step size until little is left to learn (see anneal_below_failure)."""
    anneal_below_failure: float = 0.1
    """Failure of the worst stage below which the learning rate shrinks with it, the entropy bonus with its square."""
    min_lr_fraction: float = 0.03
    """The learning rate never falls below this share of its start, nor the entropy bonus below the share squared."""
    max_grad_norm: float = 0.5
    """The norm to which gradients are clipped."""


@dataclass(frozen=True)
class CurriculumConfig:
    """Which problems, and which head starts."""

    threshold: float = 0.5
    """Success at which hints frees the next token, and threshold opens the next stage (its recipe: 0.9)."""
    frontier: float = 0.7
    """hints: share of the episodes with as many free tokens as the stage allows; the others have fewer."""
    explore: float = 0.3
    """Chance of a blind action: at the frontier's first token (hints), or at one token drawn by chance (others)."""
    min_stage_weight: float = 0.08
    """Least weight of a stage that is open and solved, against 1 for one that fails."""
    success_ema: float = 0.8
    """Smoothing of the success rates that steer."""


@dataclass(frozen=True)
class TrainConfig:
    """One training, whole. Made by `recipe`, so that every field has a value that works."""

    task: str = "arithmetic"
    """Name of a task (see `modelnative tasks`), or package.module:Class."""
    options: dict[str, Any] = field(default_factory=dict)
    """The task's own options."""
    core: str = "gru"
    """gru, transformer, mingru, memoryless (to see what needs no memory) or tutorial-gru."""
    algorithm: str = "ppo"
    """ppo, a2c, grpo, rloo or reinforce."""
    curriculum: str = "hints"
    """hints (reverse curriculum from the oracle), or without: uniform, threshold, learnability, regret, progress,
    bandit, tutorial."""
    stages: int = 0
    """Train on the first so many stages of the task, which are the easiest; the others are only tested. 0 is all."""
    split: str = "train"
    """Problems to learn from: train (the held-out fifth is never seen) or all."""
    seed: int = 0
    """Seed of weights, problems and actions."""
    episodes: int = 512
    """Episodes in an update."""
    updates: int = 2000
    """The most updates; training ends earlier once every training problem is verified."""
    minutes: float = 0.0
    """The most minutes of training; 0 is no limit."""
    threads: int = 0
    """CPU threads, each with its own episodes; 0 is one for each core, at most 8. The result does not depend on it."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1 …"""
    evaluate_every: int = 10
    """Updates between greedy evaluations of every stage on 256 training problems each."""
    target_success: float = 0.994
    """Success with sampled actions that every stage must reach before all training problems are verified greedily."""
    checkpoint_every: int = 25
    """Updates between checkpoints."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    curricula: CurriculumConfig = CurriculumConfig()


def with_fields(config: Any, changes: dict[str, Any], path: str = "") -> Any:
    """A copy of a configuration dataclass with some fields changed; nested ones by nested dictionaries.

    Raises:
        UserError: a field is unknown (the message has the nearest one) or its value is of the wrong type.

    Example:
        >>> with_fields(recipe(), {"seed": 3, "policy": {"width": 32}}).policy.width
        32
        >>> with_fields(recipe(), {"policy": {"widht": 32}})
        Traceback (most recent call last):
        modelnative.errors.UserError: policy: unknown value 'widht'; did you mean 'width'? Allowed: width, ...
    """
    known = {f.name: f for f in dataclasses.fields(config)}
    values: dict[str, Any] = {}
    for name, value in changes.items():
        choose(path or "field", name, known)
        where = f"{path}.{name}" if path else name
        current = getattr(config, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise UserError(f"{where}: {value!r} is not allowed; expected a table of fields")
            values[name] = with_fields(current, value, where)
        else:
            values[name] = _typed(where, str(known[name].type), value)
    return dataclasses.replace(config, **values)


def _typed(where: str, annotation: str, value: Any) -> Any:
    """`value`, if it is what the field's annotation says; whole numbers are accepted as floats."""
    kinds: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "int | None": (int, type(None)),
        "float": (int, float),
        "bool": (bool,),
        "str": (str,),
        "dict[str, Any]": (dict,),
    }
    if not isinstance(value, kinds[annotation]) or (isinstance(value, bool) and annotation != "bool"):
        expected = annotation.replace("dict[str, Any]", "a table")
        raise UserError(f"{where}: {value!r} is not allowed; expected {expected}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {value!r} is not allowed; expected a finite number")
    return float(value) if annotation == "float" and isinstance(value, int) else value


def validate(config: TrainConfig) -> TrainConfig:
    """`config` itself, once every field is known to be sensible.

    Raises:
        UserError: naming the field, its value and what is allowed.
    """
    choose("core", config.core, CORES)
    choose("algorithm", config.algorithm, ALGORITHMS)
    choose("curriculum", config.curriculum, CURRICULA)
    choose("split", config.split, ("train", "all"))
    choose("policy.reader", config.policy.reader, READERS)
    loss, optimizer, curricula, policy = config.loss, config.optimizer, config.curricula, config.policy
    rules: list[tuple[str, Any, bool, str]] = [
        ("seed", config.seed, 0 <= config.seed < 2**31, "a whole number from 0 to 2147483647"),
        ("stages", config.stages, config.stages >= 0, "0 (all) or more"),
        ("episodes", config.episodes, config.episodes >= 1, "at least 1"),
        ("updates", config.updates, config.updates >= 1, "at least 1"),
        ("minutes", config.minutes, config.minutes >= 0, "0 (no limit) or more"),
        ("threads", config.threads, config.threads >= 0, "0 (choose) or more"),
        ("evaluate_every", config.evaluate_every, config.evaluate_every >= 1, "at least 1"),
        ("target_success", config.target_success, 0 < config.target_success <= 1, "above 0, at most 1"),
        ("checkpoint_every", config.checkpoint_every, config.checkpoint_every >= 1, "at least 1"),
        ("policy.width", policy.width, policy.width >= 1, "at least 1"),
        ("policy.width", policy.width, policy.reader == "sum" or policy.width % 2 == 0, "even, for policy.reader gru"),
        ("policy.layers", policy.layers, policy.layers is None or policy.layers >= 1, "at least 1"),
        (
            "policy.heads",
            policy.heads,
            config.core != "transformer" or (policy.heads >= 1 and policy.width % policy.heads == 0),
            f"a divisor of policy.width ({policy.width})",
        ),
        ("loss.epochs", loss.epochs, loss.epochs >= 1, "at least 1"),
        (
            "loss.minibatches",
            loss.minibatches,
            1 <= loss.minibatches <= config.episodes,
            f"from 1 to the episodes of an update ({config.episodes})",
        ),
        ("loss.clip_low", loss.clip_low, 0 <= loss.clip_low < 1, "from 0 (no clipping) to below 1"),
        ("loss.clip_high", loss.clip_high, loss.clip_high >= 0, "0 or more"),
        ("loss.gamma", loss.gamma, 0 < loss.gamma <= 1, "above 0, at most 1"),
        ("loss.gae_lambda", loss.gae_lambda, 0 <= loss.gae_lambda <= 1, "from 0 to 1"),
        (
            "loss.num_generations",
            loss.num_generations,
            config.algorithm not in ("grpo", "rloo")
            or (
                loss.num_generations >= 2
                and config.episodes % loss.num_generations == 0
                and config.episodes >= loss.num_generations
            ),
            f"at least 2, and a divisor of episodes ({config.episodes})",
        ),
        ("loss.value_weight", loss.value_weight, loss.value_weight >= 0, "0 or more"),
        ("loss.entropy_weight", loss.entropy_weight, loss.entropy_weight >= 0, "0 or more"),
        ("loss.imitation_weight", loss.imitation_weight, loss.imitation_weight >= 0, "0 or more"),
        ("loss.hint_weight", loss.hint_weight, loss.hint_weight >= 0, "0 or more"),
        ("optimizer.learning_rate", optimizer.learning_rate, optimizer.learning_rate > 0, "above 0"),
        (
            "optimizer.anneal_below_failure",
            optimizer.anneal_below_failure,
            0 < optimizer.anneal_below_failure <= 1,
            "above 0, at most 1",
        ),
        ("optimizer.min_lr_fraction", optimizer.min_lr_fraction, 0 <= optimizer.min_lr_fraction <= 1, "from 0 to 1"),
        (
            "optimizer.max_grad_norm",
            optimizer.max_grad_norm,
            optimizer.max_grad_norm > 0,
            "above 0",
        ),
        ("curricula.threshold", curricula.threshold, 0 < curricula.threshold < 1, "between 0 and 1"),
        ("curricula.frontier", curricula.frontier, 0 < curricula.frontier <= 1, "above 0, at most 1"),
        ("curricula.explore", curricula.explore, 0 <= curricula.explore < 1, "from 0 to below 1"),
        (
            "curricula.min_stage_weight",
            curricula.min_stage_weight,
            0 < curricula.min_stage_weight <= 1,
            "above 0, at most 1",
        ),
        ("curricula.success_ema", curricula.success_ema, 0 <= curricula.success_ema < 1, "from 0 to below 1"),
    ]
    for name, value, holds, allowed in rules:
        if not holds:
            raise UserError(f"{name}: {value!r} is not allowed; expected {allowed}")
    return config
