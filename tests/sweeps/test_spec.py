"""A spec says what is wrong with it, by name, before anything is planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelnative.errors import UserError
from modelnative.runs.files import FORMAT
from modelnative.sweeps.plan import plan
from modelnative.sweeps.spec import Spec, differences, nested, parse_spec, read_spec
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

TOML = """
seeds = [3, 5]
[base]
task = "tutorial"
policy.width = 16
[base.options]
note = "x"
[grid]
algorithm = ["ppo", "grpo"]
"loss.epochs" = [1, 2]
[[trials]]
curriculum = "uniform"
[[trials]]
optimizer = { min_lr_fraction = 0.1, anneal_below_failure = 0.2 }
"""


def test_a_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    assert read_spec(path) == Spec(
        name="mine",
        base={"task": "tutorial", "policy.width": 16, "options.note": "x"},
        grid={"algorithm": ["ppo", "grpo"], "loss.epochs": [1, 2]},
        trials=({"curriculum": "uniform"}, {"optimizer.min_lr_fraction": 0.1, "optimizer.anneal_below_failure": 0.2}),
        seeds=(3, 5),
    )


def test_json_is_as_good_and_a_spec_reads_what_it_writes(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    spec = read_spec(path)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(vars(spec)))
    assert read_spec(other) == spec
    assert parse_spec(vars(spec)) == spec


def test_seeds_may_be_a_number() -> None:
    assert parse_spec({"seeds": 3}).seeds == (0, 1, 2)
    assert parse_spec({}).seeds == ()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"grids": {}}, "spec: unknown value 'grids'; did you mean 'grid'?"),
        ({"name": "a/b"}, "name: 'a/b' is not allowed; expected letters"),
        ({"name": ".."}, "name: '..' is not allowed"),
        ({"name": 3}, "name: 3 is not allowed"),
        ({"seeds": 0}, "seeds: 0 is not allowed; expected how many, from 1 to 10,000"),
        ({"seeds": 10**19}, "seeds: 10000000000000000000 is not allowed"),
        ({"seeds": True}, "seeds: True is not allowed"),
        ({"seeds": "ten"}, "seeds: 'ten' is not allowed"),
        ({"seeds": [1, 1]}, r"seeds: \[1, 1\] is not allowed; expected each seed once"),
        ({"seeds": [1.5]}, r"seeds: \[1.5\] is not allowed"),
        ({"seeds": [1], "grid": {"seed": [1]}}, r"grid.seed: \[1\] is not allowed beside seeds"),
        ({"seeds": 2, "base": {"seed": 1}}, "base.seed: 1 is not allowed beside seeds"),
        ({"seeds": 2, "trials": [{"seed": 1}]}, "trials.seed: 1 is not allowed beside seeds"),
        ({"base": 3}, "base: 3 is not allowed; expected a table"),
        ({"base": {"sed": 3}}, "base: unknown field 'sed'; did you mean 'seed'"),
        ({"base": {"policy": 3}}, "base: unknown field 'policy'; did you mean 'policy"),
        ({"base": {"policy": {"widht": 3}}}, "base: unknown field 'policy.widht'; did you mean 'policy.width'?"),
        ({"base": {"seed.x": 3}}, "base: unknown field 'seed.x'; did you mean 'seed'?"),
        ({"base": {"policy.width": 3, "policy": {"width": 4}}}, "base.policy.width: 4 is given beside 3"),
        ({"base": {"options": {"x": object()}}}, "base.options.x: .* is not allowed; expected text, a number"),
        ({"grid": {"algoritm": ["ppo"]}}, "grid: unknown field 'algoritm'; did you mean 'algorithm'?"),
        ({"grid": {"loss.epoch": [1]}}, "grid: unknown field 'loss.epoch'; did you mean 'loss.epochs'?"),
        ({"grid": {"zzz": [1]}}, "grid: unknown field 'zzz'; see: modelnative train --help"),
        ({"grid": {"algorithm": "ppo"}}, "grid.algorithm: 'ppo' is not allowed; expected a list of values to try"),
        ({"grid": {"algorithm": []}}, r"grid.algorithm: \[\] is not allowed; expected a list of values"),
        ({"grid": {"options": [{"horizon": 12}]}}, "grid: unknown field 'options'; did you mean 'options.NAME'?"),
        ({"grid": {"options.horizon": [[12]]}}, "grid.options.horizon: .* is not allowed; expected plain values"),
        ({"trials": {"seed": 3}}, r"trials: {'seed': 3} is not allowed; expected a list of tables"),
        ({"trials": [3]}, "trials: 3 is not allowed; expected a table"),
    ],
)
def test_mistakes_are_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_spec(table)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("confidence", "target_success"),
        ("loss.trace", "loss.gae_lambda"),
        ("trace", "loss.gae_lambda"),
        ("dials", "options"),
        ("dials.feedback", "options"),
        ("width", "policy.width"),
    ],
)
def test_an_earlier_or_a_short_name_is_answered_with_the_name_of_today(old: str, new: str) -> None:
    for table in ({"base": {old: 1}}, {"grid": {old: [1]}}, {"trials": [{old: 1}]}):
        with pytest.raises(UserError, match=f"unknown field '{old}'; did you mean '{new}'?"):
            parse_spec(table)


def test_the_base_may_be_the_configuration_of_a_run() -> None:
    config = with_fields(recipe(), {"policy": {"width": 8}, "options": {"horizon": 13}, "threads": 1})
    written = {"format": FORMAT, **config.model_dump()}
    assert [trial.config for trial in plan(parse_spec({"base": json.loads(json.dumps(written))}))] == [config]
    old = parse_spec({"base": {"format": "modelnative/1", "dials": {"horizon": 13}, "loss": {"trace": 0.5}}})
    assert old.base == {"options.horizon": 13, "loss.gae_lambda": 0.5}
    with pytest.raises(UserError, match="format: 'modelnative/9' is not allowed"):
        parse_spec({"base": {"format": "modelnative/9"}})


@pytest.mark.parametrize("content", [b"seeds = ", b'{"seeds": ', b"\xff"])
def test_a_file_that_is_neither(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spec.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is neither TOML nor JSON"):
        read_spec(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_spec(tmp_path)


def test_differences_are_named_and_names_do_not_count() -> None:
    ours = parse_spec({"name": "a", "seeds": 2, "base": {"episodes": 8}, "grid": {"seed": [1]}} | {"seeds": []})
    theirs = parse_spec({"name": "b", "base": {"episodes": 16}, "grid": {"core": ["gru"]}})
    assert differences(ours, ours) == []
    assert differences(ours, theirs) == [
        "base.episodes: 8 instead of 16",
        "grid.seed: [1] instead of nothing",
        'grid.core: nothing instead of ["gru"]',
    ]
    assert differences(Spec("a", seeds=(0,)), Spec("b", seeds=(0,))) == []
    assert differences(Spec("a", base={"policy.copy_head": True}), Spec("a", base={"policy.copy_head": 1})), (
        "True is not 1"
    )


def test_nested() -> None:
    assert nested({"options.a": 1, "options.b": 2, "seed": 3}) == {"options": {"a": 1, "b": 2}, "seed": 3}
