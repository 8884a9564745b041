from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelnative.errors import UserError
from modelnative.policies.config_model import ConfigModel, leaf_fields
from modelnative.training.config import ALGORITHMS, CORES, CURRICULA, TrainConfig, with_fields
from modelnative.training.recipes import recipe

NAN = float("nan")
# One value for each side of every rule, beside a choice that the rule depends on.
WRONG: list[tuple[str, Any, dict[str, Any]]] = [
    ("core", "grru", {}),
    ("algorithm", "poo", {}),
    ("curriculum", "hint", {}),
    ("split", "heldout", {}),
    ("alarms", "loud", {}),
    ("log", "tensorbord", {}),
    ("log", "wandb;mlflow", {}),
    ("seed", -1, {}),
    ("seed", 2**31, {}),
    ("episodes", 0, {}),
    ("updates", 0, {}),
    ("minutes", -1.0, {}),
    ("minutes", NAN, {}),
    ("threads", -1, {}),
    ("stages", -1, {}),
    ("evaluate_every", 0, {}),
    ("target_success", 0.0, {}),
    ("target_success", 1.5, {}),
    ("checkpoint_every", 0, {}),
    ("keep_checkpoints", 0, {}),
    ("keep_checkpoints", 10_001, {}),
    ("policy.width", 0, {}),
    ("policy.layers", 0, {}),
    ("policy.heads", 0, {"core": "transformer"}),
    ("policy.heads", 3, {"core": "transformer", "policy": {"width": 64}}),
    ("loss.epochs", 0, {}),
    ("loss.minibatches", 0, {}),
    ("loss.minibatches", 65, {"episodes": 64}),
    ("loss.clip_low", -0.1, {}),
    ("loss.clip_low", 1.0, {}),
    ("loss.clip_high", -0.1, {}),
    ("loss.gamma", 0.0, {}),
    ("loss.gamma", 1.1, {}),
    ("loss.gae_lambda", -0.1, {}),
    ("loss.gae_lambda", 1.1, {}),
    ("loss.num_generations", 1, {"algorithm": "grpo"}),
    ("loss.num_generations", 7, {"algorithm": "rloo", "episodes": 64}),
    ("loss.num_generations", 128, {"algorithm": "grpo", "episodes": 64}),
    ("loss.value_weight", -1.0, {}),
    ("loss.reward_scale", -1.0, {}),
    ("loss.entropy_weight", -1.0, {}),
    ("loss.imitation_weight", -1.0, {}),
    ("loss.hint_weight", -1.0, {}),
    ("policy.reader", "lips", {}),
    ("optimizer.learning_rate", 0.0, {}),
    ("optimizer.learning_rate", NAN, {}),
    ("optimizer.min_lr_fraction", -0.1, {}),
    ("optimizer.min_lr_fraction", 1.1, {}),
    ("optimizer.max_grad_norm", 0.0, {}),
    ("curricula.threshold", 0.0, {}),
    ("curricula.threshold", 1.0, {}),
    ("curricula.frontier", 0.0, {}),
    ("curricula.frontier", 1.1, {}),
    ("curricula.explore", -0.1, {}),
    ("curricula.explore", 1.0, {}),
    ("curricula.min_stage_weight", 0.0, {}),
    ("curricula.min_stage_weight", 1.1, {}),
    ("curricula.search_budget", 0, {}),
    ("curricula.success_ema", -0.1, {}),
    ("curricula.success_ema", 1.0, {}),
    ("optimizer.anneal_below_failure", 0.0, {}),
    ("optimizer.anneal_below_failure", 1.1, {}),
]
ANYTHING = {
    "task",
    "options",
    "device",
    "init",
    "policy.copy_head",
    "policy.stage_aware",
    "loss.scale_rewards",
    "curricula.search",
}


def nested(path: str, value: Any) -> dict[str, Any]:
    """The changes that set one field: {"loss": {"gamma": 0.9}} for loss.gamma."""
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}


def paths() -> list[str]:
    """Every field that is not a group of fields."""
    return [name for name, _ in leaf_fields(TrainConfig)]


def value_of(config: ConfigModel, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


# Validation


def test_the_default_configuration_is_the_default_recipe() -> None:
    assert TrainConfig() == recipe()


def test_every_recipe_is_valid() -> None:
    for core in CORES:
        for algorithm in ALGORITHMS:
            for curriculum in CURRICULA:
                made = recipe("tutorial", algorithm, core, curriculum)
                assert TrainConfig(**made.model_dump()) == made
                names = (made.task, made.core, made.algorithm, made.curriculum)
                assert names == ("tutorial", core, algorithm, curriculum)


@pytest.mark.parametrize(("path", "value", "beside"), WRONG, ids=[f"{p}={v}" for p, v, _ in WRONG])
def test_what_is_not_sensible_is_refused(path: str, value: Any, beside: dict[str, Any]) -> None:
    base = with_fields(recipe(), beside)
    with pytest.raises(UserError) as caught:
        with_fields(base, nested(path, value))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert repr(value) in message
    assert "expected" in message or "Allowed:" in message
    assert "\n" not in message


def test_every_field_has_a_rule() -> None:
    """A new field needs bounds and lines in `WRONG`, or a place among those that may be anything."""
    assert {path for path, _, _ in WRONG} | ANYTHING == set(paths())


@pytest.mark.parametrize(
    ("path", "value", "beside"),
    [
        ("policy.heads", 3, {"core": "gru"}),
        ("loss.num_generations", 7, {"algorithm": "ppo"}),
        ("seed", 0, {}),
        ("seed", 2**31 - 1, {}),
        ("split", "all", {}),
        ("policy.layers", None, {}),
        ("loss.minibatches", 64, {"episodes": 64}),
        ("loss.clip_low", 0.0, {}),
        ("curricula.explore", 0.0, {}),
        ("loss.gamma", 1, {}),
    ],
)
def test_the_edges_are_allowed(path: str, value: Any, beside: dict[str, Any]) -> None:
    changed = with_fields(with_fields(recipe(), beside), nested(path, value))
    assert value_of(changed, path) == value


# Names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"core": "transfromer"}, r"core: unknown value 'transfromer'; did you mean 'transformer'\? Allowed: gru, "),
        ({"algorithm": "gpro"}, r"algorithm: unknown value 'gpro'; did you mean 'grpo'\? Allowed: ppo, "),
        ({"curriculum": "hint"}, r"curriculum: unknown value 'hint'; did you mean 'hints'\? Allowed: hints, "),
        ({"core": "42"}, r"core: unknown value '42'\. Allowed: gru, "),
    ],
)
def test_a_recipe_names_the_nearest(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sed": 1}, r"config: unknown field 'sed'; did you mean 'seed'\? Allowed: task, "),
        ({"loss": {"gama": 1}}, r"loss: unknown field 'gama'; did you mean 'gamma'\? Allowed: epochs, "),
        (
            {"optimizer": {"learning_rat": 1}},
            r"optimizer: unknown field 'learning_rat'; did you mean 'learning_rate'\?",
        ),
        ({"loss": 3}, r"loss: 3 is not allowed; expected a table of fields"),
        ({"seed": "3"}, r"seed: '3' is not allowed; expected a whole number"),
        ({"seed": 1.5}, r"seed: 1\.5 is not allowed; expected a whole number"),
        ({"seed": True}, r"seed: True is not allowed; expected a whole number"),
        ({"minutes": None}, r"minutes: None is not allowed; expected a finite number"),
        ({"minutes": False}, r"minutes: False is not allowed; expected a finite number"),
        ({"core": 3}, r"core: 3 is not allowed; expected text"),
        ({"options": [1]}, r"options: \[1\] is not allowed; expected a table"),
        ({"policy": {"copy_head": 1}}, r"policy\.copy_head: 1 is not allowed; expected true or false"),
        ({"policy": {"layers": "two"}}, r"policy\.layers: 'two' is not allowed; expected a whole number"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_fields(recipe(), changes)


# Changes


# A value of each field that is allowed and not its default.
OTHER = {
    "task": "tutorial",
    "options": {"reward": "milestone"},
    "core": "mingru",
    "algorithm": "a2c",
    "curriculum": "uniform",
    "split": "all",
    "alarms": "stop",
    "log": "tensorboard,mlflow",
    "device": "cuda",
    "init": "runs/first",
    "policy.layers": 3,
    "policy.reader": "gru",
}


def other(path: str, old: Any) -> Any:
    if path in OTHER:
        return OTHER[path]
    if isinstance(old, bool):
        return not old
    return old + 1 if isinstance(old, int) else old / 2 + 0.11


@pytest.mark.parametrize("path", paths())
def test_one_field_changes_and_no_other(path: str) -> None:
    base = recipe()
    old = value_of(base, path)
    new = other(path, old)
    changed = with_fields(base, nested(path, new))
    assert value_of(changed, path) == new != old
    assert {name for name in paths() if value_of(changed, name) != value_of(base, name)} == {path}
    assert base == recipe(), "the original is unchanged"


def test_a_configuration_cannot_be_changed_in_place() -> None:
    made = recipe()
    with pytest.raises(ValueError, match="frozen"):
        made.seed = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        made.loss.gamma = 0.5  # type: ignore[misc]


def test_whole_numbers_become_floats() -> None:
    changed = with_fields(recipe(), {"loss": {"gamma": 1}, "minutes": 2})
    assert isinstance(changed.loss.gamma, float)
    assert isinstance(changed.minutes, float)


def test_a_config_survives_its_own_dictionary() -> None:
    made = with_fields(recipe(algorithm="rloo", core="mingru"), {"options": {"reward": "milestone"}, "seed": 4})
    assert with_fields(TrainConfig(), made.model_dump()) == made


def test_every_field_is_described() -> None:
    """The text that `--help`, the schema and the reference show: one or more sentences."""
    for name, field in leaf_fields(TrainConfig):
        assert (field.description or "").endswith((".", "...")), name


def test_importing_it_does_not_import_torch() -> None:
    code = (
        "import sys, modelnative.training.config as c; c.TrainConfig(); "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    path = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
