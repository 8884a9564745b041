from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import modelnative.training.config as config_module
from modelnative.errors import UserError
from modelnative.training.config import ALGORITHMS, CORES, CURRICULA, TrainConfig, validate, with_fields
from modelnative.training.recipes import recipe

NAN = float("nan")
# One value for each side of every rule that `validate` holds, beside a choice that the rule depends on.
WRONG: list[tuple[str, Any, dict[str, Any]]] = [
    ("core", "grru", {}),
    ("algorithm", "poo", {}),
    ("curriculum", "hint", {}),
    ("split", "heldout", {}),
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
    ("curricula.success_ema", -0.1, {}),
    ("curricula.success_ema", 1.0, {}),
    ("optimizer.anneal_below_failure", 0.0, {}),
    ("optimizer.anneal_below_failure", 1.1, {}),
]
ANYTHING = {"task", "options", "device", "policy.copy_head", "policy.stage_aware", "loss.scale_rewards"}


def nested(path: str, value: Any) -> dict[str, Any]:
    """The changes that set one field: {"loss": {"gamma": 0.9}} for loss.gamma."""
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}


def paths(config: Any = None, before: str = "") -> list[str]:
    """Every field that is not a group of fields."""
    found = []
    config = config or recipe()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        inner = dataclasses.is_dataclass(value)
        found += paths(value, f"{before}{field.name}.") if inner else [before + field.name]
    return found


# Validation


def test_every_recipe_is_valid() -> None:
    for core in CORES:
        for algorithm in ALGORITHMS:
            for curriculum in CURRICULA:
                made = recipe("tutorial", core, algorithm, curriculum)
                assert validate(made) is made
                assert (made.task, made.core, made.algorithm, made.curriculum) == (
                    "tutorial",
                    core,
                    algorithm,
                    curriculum,
                )


@pytest.mark.parametrize(("path", "value", "beside"), WRONG, ids=[f"{p}={v}" for p, v, _ in WRONG])
def test_what_is_not_sensible_is_refused(path: str, value: Any, beside: dict[str, Any]) -> None:
    base = with_fields(recipe(), beside)
    with pytest.raises(UserError) as caught:
        validate(with_fields(base, nested(path, value)))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert repr(value) in message
    assert "expected" in message or "Allowed:" in message
    assert "\n" not in message


def test_every_field_has_a_rule() -> None:
    """A new field needs a rule in `validate` and a line in `WRONG`, or a place among those that may be anything."""
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
    validate(with_fields(with_fields(recipe(), beside), nested(path, value)))


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
        ({"sed": 1}, r"field: unknown value 'sed'; did you mean 'seed'\? Allowed: task, "),
        ({"loss": {"gama": 1}}, r"loss: unknown value 'gama'; did you mean 'gamma'\? Allowed: epochs, "),
        (
            {"optimizer": {"learning_rat": 1}},
            r"optimizer: unknown value 'learning_rat'; did you mean 'learning_rate'\?",
        ),
        ({"loss": 3}, r"loss: 3 is not allowed; expected a table of fields"),
        ({"seed": "3"}, r"seed: '3' is not allowed; expected int"),
        ({"seed": 1.5}, r"seed: 1\.5 is not allowed; expected int"),
        ({"seed": True}, r"seed: True is not allowed; expected int"),
        ({"minutes": None}, r"minutes: None is not allowed; expected float"),
        ({"minutes": False}, r"minutes: False is not allowed; expected float"),
        ({"core": 3}, r"core: 3 is not allowed; expected str"),
        ({"options": [1]}, r"options: \[1\] is not allowed; expected a table"),
        ({"policy": {"copy_head": 1}}, r"policy\.copy: 1 is not allowed; expected bool"),
        ({"policy": {"layers": "two"}}, r"policy\.layers: 'two' is not allowed; expected int"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_fields(recipe(), changes)


# Changes


@pytest.mark.parametrize("path", paths())
def test_one_field_changes_and_no_other(path: str) -> None:
    base = recipe()
    old: Any = base
    for name in path.split("."):
        old = getattr(old, name)
    new = {"str": "other", "dict": {"reward": "milestone"}, "bool": not old, "NoneType": 3}.get(type(old).__name__)
    changed = with_fields(base, nested(path, old + 1 if new is None else new))
    before, after = dataclasses.asdict(base), dataclasses.asdict(changed)
    *groups, last = path.split(".")
    for group in groups:
        assert {k: v for k, v in before.items() if k != group} == {k: v for k, v in after.items() if k != group}
        before, after = before[group], after[group]
    assert {k: v for k, v in before.items() if k != last} == {k: v for k, v in after.items() if k != last}
    assert before[last] != after[last]
    assert base == recipe(), "the original stands"


def test_whole_numbers_become_floats() -> None:
    changed = with_fields(recipe(), {"loss": {"gamma": 1}, "minutes": 2})
    assert isinstance(changed.loss.gamma, float)
    assert isinstance(changed.minutes, float)


def test_a_config_survives_its_own_dictionary() -> None:
    made = with_fields(recipe(core="mingru", algorithm="rloo"), {"options": {"reward": "milestone"}, "seed": 4})
    assert with_fields(TrainConfig(), dataclasses.asdict(made)) == made


def test_every_field_is_explained() -> None:
    """The text under each field is what `--help` shows."""
    text = Path(config_module.__file__).read_text()
    policy = Path(config_module.__file__).parents[1] / "policies" / "config.py"
    for name in {path.split(".")[-1] for path in paths()}:
        assert re.search(rf'^    {name}: [^\n]+\n    """\w', text + policy.read_text(), re.MULTILINE), name


def test_importing_it_does_not_import_torch() -> None:
    code = (
        "import sys, modelnative.training.config as c; c.validate(c.recipe()); "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    path = str(Path(config_module.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
