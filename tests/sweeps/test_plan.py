"""A plan is the product of its spec, and a trial is called the same wherever it is planned."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeping import ROOT, environment

from modelnative.errors import UserError
from modelnative.sweeps.plan import check, field_of, plan
from modelnative.sweeps.spec import Spec, parse_spec, read_spec
from modelnative.training.config import ALGORITHMS, with_fields
from modelnative.training.recipes import recipe

GRIDS = st.fixed_dictionaries(
    {},
    optional={
        "algorithm": st.lists(st.sampled_from(list(ALGORITHMS)), min_size=1, max_size=3, unique=True),
        "policy.width": st.lists(st.integers(1, 64), min_size=1, max_size=3, unique=True),
        "optimizer.learning_rate": st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=3, unique=True),
        "options.feedback": st.just(["display", "none"]),
    },
)


@given(GRIDS, st.lists(st.integers(0, 99), max_size=3, unique=True))
def test_the_plan_is_the_product(grid: dict[str, list[Any]], seeds: list[int]) -> None:
    trials = plan(Spec("any", grid=grid, seeds=tuple(seeds)))
    axes = {**grid, **({"seed": seeds} if seeds else {})}
    wanted = set(itertools.product(*axes.values()))
    assert {tuple(field_of(trial.config, name) for name in axes) for trial in trials} == wanted
    assert len({trial.name for trial in trials}) == len(trials) == len(wanted)
    for trial in trials:
        assert trial.fields == {name: field_of(trial.config, name) for name in axes}
        assert re.fullmatch(r"[\w.,=+-]{1,120}", trial.name)
    assert [trial.config.seed for trial in trials] == sorted(
        (trial.config.seed for trial in trials), key=(seeds or [0]).index
    ), "one seed after the other"


@given(GRIDS)
def test_names_are_stable_and_change_with_any_field(grid: dict[str, list[Any]]) -> None:
    first, again = plan(Spec("a", grid=grid)), plan(Spec("b", grid=dict(reversed(grid.items()))))
    assert {t.name.rpartition("-")[2] for t in first} == {t.name.rpartition("-")[2] for t in again}
    other = plan(Spec("a", base={"episodes": 256}, grid=grid))
    assert not {t.name for t in first} & {t.name for t in other}


def test_a_name_is_the_same_in_another_process() -> None:
    code = "from modelnative.sweeps.plan import plan; from modelnative.sweeps.spec import Spec; "
    code += "print(plan(Spec('x', grid={'algorithm': ['grpo']}, seeds=(3,)))[0].name)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    (trial,) = plan(Spec("x", grid={"algorithm": ["grpo"]}, seeds=(3,)))
    assert done.stdout.strip() == trial.name
    assert trial.name.startswith("algorithm=grpo,seed=3-")


def test_a_trial_starts_from_its_own_recipe() -> None:
    spec = parse_spec({"base": {"loss": {"num_generations": 4}}, "grid": {"algorithm": ["ppo", "grpo"]}})
    for trial, algorithm in zip(plan(spec), ("ppo", "grpo"), strict=True):
        expected = with_fields(recipe(algorithm=algorithm), {"threads": 1, "loss": {"num_generations": 4}})
        assert trial.config == expected
    assert plan(parse_spec({"base": {"threads": 2}}))[0].config.threads == 2


def test_cores_of_the_users_own_are_tried_with_their_recipe() -> None:
    ours, own = plan(parse_spec({"grid": {"core": ["gru", "own:Average"]}}))
    assert (ours.config, own.config.core) == (with_fields(recipe(), {"threads": 1}), "own:Average")
    assert own.config.optimizer.learning_rate == 0.0123
    assert own.name.startswith("core=own.Average-"), "a name without the colon, which some file systems refuse"


def test_trials_written_out_come_after_the_grid_and_have_all_columns() -> None:
    spec = parse_spec({"seeds": 2, "grid": {"core": ["gru", "mingru"]}, "trials": [{"curriculum": "uniform"}]})
    trials = plan(spec)
    assert [tuple(trial.fields.values()) for trial in trials[:3]] == [
        ("gru", 0, "hints"),
        ("mingru", 0, "hints"),
        ("gru", 0, "uniform"),
    ]
    assert len(trials) == 6
    assert len(plan(parse_spec({"trials": [{"core": "gru"}, {"core": "mingru"}]}))) == 2, "no grid, no product of it"
    assert len(plan(Spec("base alone"))) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"grid": {"algorithm": ["ppo", "pppo"]}}, "trial algorithm=pppo: algorithm: unknown value 'pppo'; did you"),
        ({"grid": {"seed": ["3"]}}, "trial seed=3: seed: '3' is not allowed; expected a whole number"),
        ({"seeds": [-1]}, "trial seed=-1: seed: -1 is not allowed"),
        ({"grid": {"policy.width": [8, 0]}}, "trial policy.width=0: policy.width: 0 is not allowed"),
        ({"base": {"task": 3}}, "trial base: task: 3 is not allowed; expected text"),
        ({"base": {"core": ["gru"]}}, r"trial base: core: unknown value \['gru'\]"),
        ({"grid": {"policy.width": [8, 8]}}, "trials: 'policy.width=8' is not allowed twice"),
        ({"trials": [{}, {"core": "gru"}]}, "is not allowed twice"),
        (
            {"grid": {"seed": list(range(10**4)), "episodes": list(range(1, 99))}},
            "trials: 980000 is not allowed; expected",
        ),
        ({"base": {"episodes": 10}, "grid": {"algorithm": ["grpo"]}}, "trial algorithm=grpo: loss.num_generations: 16"),
    ],
)
def test_mistakes_name_the_trial(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(parse_spec(table))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "arithmetik"}, "trial task=arithmetik: task: unknown value 'arithmetik'"),
        ({"options.horizn": 12}, "trial options.horizn=12: option of task arithmetic: unknown value .horizn."),
        ({"device": "abacus"}, "trial device=abacus: device: 'abacus' is not available here"),
    ],
)
def test_tasks_and_devices_are_asked_for(fields: dict[str, Any], message: str) -> None:
    trials = plan(Spec("x", grid={name: [value] for name, value in fields.items()}))
    with pytest.raises(UserError, match=message):
        check(trials)
    if "device" in fields:
        check(trials, devices=False)


def test_the_example_is_a_sweep() -> None:
    trials = plan(read_spec(ROOT / "examples" / "sweep.toml"))
    assert len(trials) == 20
    check(trials)
