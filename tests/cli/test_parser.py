"""Flags and files: what they say is what the configuration is, and the same values are refused everywhere."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeping import environment

from modelnative.cli.fields import read_configured
from modelnative.cli.parser import MISSING, OTHER_NAMES, Parser, flag
from modelnative.errors import UserError
from modelnative.policies.config import CORES
from modelnative.policies.config_model import leaf_fields, nested, value_type
from modelnative.runs.run import Run
from modelnative.runs.upgrade import earlier_names
from modelnative.speed.measure import default_config
from modelnative.training.config import ALGORITHMS, CURRICULA, TrainConfig, with_fields
from modelnative.training.recipes import BENCH, recipe

OLD = Path(__file__).parents[1] / "runs" / "data" / "old_finished" / "config.json"
BOUNDS = ("ge", "gt", "le", "lt")


def parsed(line: str) -> TrainConfig:
    """The configuration of `modelnative train` with this line."""
    return read_configured(Parser("train"), shlex.split(line), {})[1]


def measured(line: str) -> TrainConfig:
    """The configuration of `modelnative bench` with this line."""
    return read_configured(Parser("bench"), shlex.split(line), BENCH)[1]


def test_the_recipe_is_the_default() -> None:
    assert parsed("") == recipe() == TrainConfig()
    for core in CORES:
        assert parsed(f"--core {core}") == parsed(f"--policy {core}") == recipe(core=core)
    for algorithm in ALGORITHMS:
        assert parsed(f"--algorithm={algorithm}") == recipe(algorithm=algorithm)
    for curriculum in CURRICULA:
        assert parsed(f"--curriculum {curriculum}") == recipe(curriculum=curriculum)
    assert parsed("--task tutorial --seed 2") == with_fields(recipe("tutorial"), {"seed": 2})


def test_what_is_measured_by_default(tmp_path: Path) -> None:
    assert measured("") == default_config()
    assert measured("--algorithm grpo") == default_config(algorithm="grpo")
    assert measured("--curriculum hints --episodes 64").curriculum == "hints"
    toml = tmp_path / "c.toml"
    toml.write_text('curriculum = "threshold"\nepisodes = 512\n')
    config = measured(f"--config {toml}")
    assert (config.curriculum, config.episodes, config.curricula.threshold) == ("threshold", 512, 0.9)


def test_flags_reach_nested_fields() -> None:
    config = parsed("--policy.width 32 --policy.no-copy-head --loss.gamma .9 --checkpoint_every 7 --policy.layers 3")
    assert (config.policy.width, config.policy.copy_head, config.policy.layers) == (32, False, 3)
    assert (config.loss.gamma, config.checkpoint_every) == (0.9, 7)


def test_the_last_flag_counts() -> None:
    config = parsed("--seed 1 --seed=2 --policy.no-copy-head --policy.copy-head --options a=1 --options b=2 a=3")
    assert (config.seed, config.policy.copy_head, config.options) == (2, True, {"a": 3, "b": 2})


def test_dotted_names_are_nested_tables() -> None:
    assert nested({"options.a": 1, "options.b": 2, "seed": 3}) == {"options": {"a": 1, "b": 2}, "seed": 3}


def test_options_are_json_or_text() -> None:
    options = parsed("--options feedback=none horizon=14 gamma=0.5 note=a=b flag=true --seed 1").options
    assert options == {"feedback": "none", "horizon": 14, "gamma": 0.5, "note": "a=b", "flag": True}


def test_flags_override_the_file_and_the_file_the_recipe(tmp_path: Path) -> None:
    toml = tmp_path / "c.toml"
    toml.write_text('algorithm = "grpo"\nseed = 3\n[policy]\nwidth = 16\n[options]\nfeedback = "none"\n')
    config = parsed(f"--config {toml}")
    expected = {"seed": 3, "policy": {"width": 16}, "options": {"feedback": "none"}}
    assert config == with_fields(recipe(algorithm="grpo"), expected)
    over = parsed(f"--config {toml} --seed 4 --algorithm a2c --policy.width 24")
    assert (over.seed, over.algorithm, over.policy.width) == (4, "a2c", 24)
    assert over.loss == recipe(algorithm="a2c").loss


def test_options_of_flags_join_those_of_the_file(tmp_path: Path) -> None:
    toml = tmp_path / "c.toml"
    toml.write_text('[options]\nfeedback = "none"\nhorizon = 13\n')
    assert parsed(f"--config {toml} --options horizon=14").options == {"feedback": "none", "horizon": 14}


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("seed = 3\n", encoding="utf-8-sig")
    (tmp_path / "c.json").write_text('{"seed": 3}', encoding="utf-8-sig")
    assert parsed(f"--config {tmp_path / 'c.toml'}") == parsed(f"--config {tmp_path / 'c.json'}") == parsed("--seed 3")


def test_a_runs_own_configuration_is_a_configuration_file(tmp_path: Path) -> None:
    config = with_fields(recipe(core="mingru", algorithm="grpo"), {"seed": 5, "policy": {"width": 8}})
    Run.create(tmp_path / "run", config)
    assert parsed(f"--config {tmp_path / 'run' / 'config.json'}") == config


def test_so_is_that_of_an_earlier_format() -> None:
    fields = {"updates": 2, "episodes": 16, "policy": {"width": 8}, "threads": 1}
    assert parsed(f"--config {OLD}") == with_fields(recipe(), fields)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("lr", "optimizer.learning-rate"),
        ("vf-coef", "loss.value-weight"),
        ("ent_coef", "loss.entropy-weight"),
        ("batch-size", "episodes"),
        ("width", "policy.width"),
        ("gamma", "loss.gamma"),
        ("epochs", "loss.epochs"),
        ("clip", "loss.clip-high"),
        ("clip_range", "loss.clip-high"),
        ("num-envs", "episodes"),
        ("hidden-size", "policy.width"),
        ("group_size", "loss.num-generations"),
        ("max-steps", "updates"),
        ("policy.widht", "policy.width"),
        ("no-copy-head", "policy.no-copy-head"),
        *((old, flag(new).removeprefix("--")) for old, new in earlier_names().items()),
    ],
)
def test_an_unknown_flag_has_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=rf"unknown flag; did you mean --{re.escape(nearest)}\? see: modelnative train"):
        parsed(f"--{name}=1")


def test_an_unknown_flag_that_is_near_to_none_has_none() -> None:
    with pytest.raises(UserError, match=r"^--xyz: unknown flag; see: modelnative train --help$"):
        parsed("--xyz=1")


def test_what_training_does_not_have_says_so() -> None:
    for name in ("kl", "beta", "target_kl"):
        with pytest.raises(UserError, match=r"^--[\w-]+: unknown flag; there is no KL penalty; see --loss.clip-high$"):
            parsed(f"--{name} 0.1")


def test_other_names_are_of_flags_that_exist_and_of_one_each() -> None:
    flags = {flag(name) for name, _ in leaf_fields(TrainConfig)} | {"--out", "--json"}
    assert set(OTHER_NAMES) <= flags
    names = " ".join([*OTHER_NAMES.values(), *MISSING.values()]).split()
    assert len(names) == len(set(names))
    leaves = {known.lstrip("-").rpartition(".")[2] for known in flags}
    assert not leaves & set(names), "a flag's own last part wins"


@pytest.mark.parametrize(("words", "expected"), [("", True), ("=true", True), (" false", False), ("=false", False)])
def test_switches_take_a_value(words: str, expected: bool) -> None:
    assert parsed(f"--policy.copy-head{words}").policy.copy_head is expected
    assert parsed(f"--policy.no-copy-head --policy.copy-head{words} --seed 1").policy.copy_head is expected
    with pytest.raises(UserError, match="'yes' is not allowed; expected true or false"):
        parsed("--policy.copy-head=yes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"task": 3}, "task: 3 is not allowed; expected text that is not empty"),
        ({"task": ["x"]}, r"task: \['x'\] is not allowed; expected text that is not empty"),
        ({"task": ""}, "task: '' is not allowed; expected text that is not empty"),
        (
            {"format": "modelnative/3"},
            "format: 'modelnative/3' is not allowed; expected modelnative/1 or modelnative/2",
        ),
        ({"format": "modelnative/1", "core": "tutorial" + "-gru", "policy": 3}, "policy: 3 is not allowed"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        parsed(f"--config {tmp_path / 'c.json'}")


@pytest.mark.parametrize("content", ['{"options": {"x": NaN}}', '{"options": {"x": [1, -Infinity]}}'])
def test_options_that_no_file_can_hold(tmp_path: Path, content: str) -> None:
    """Flags, files and Python refuse them in the same words."""
    (tmp_path / "c.json").write_text(content)
    options = json.loads(content)["options"]
    makers: list[Callable[[], TrainConfig]] = [
        lambda: parsed(f"--config {tmp_path / 'c.json'}"),
        lambda: parsed(shlex.join(["--options", f"x={json.dumps(options['x'])}"])),
        lambda: TrainConfig(options=options),
        lambda: with_fields(recipe(), {"options": options}),
    ]
    messages = {str(answer(make)) for make in makers}
    assert messages == {f"options.x: {options['x']!r} is not allowed; expected what JSON can hold, numbers finite"}


@pytest.mark.parametrize(("line", "code"), [("--help", 0), ("train --help", 0), ("train --sed 3", 2), ("schema", 0)])
def test_help_and_typing_errors_do_not_import_torch(line: str, code: int) -> None:
    script = "import sys; from modelnative import cli\ntry: cli.main()\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", script, *line.split()], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr


# Bounds. All three ways must agree on each value: they build the same configuration, or refuse it in the same words.


def bounded() -> dict[str, dict[str, float]]:
    """The bounds of every field that has any, by dotted name."""
    found = {}
    for name, field in leaf_fields(TrainConfig):
        bounds = {key: getattr(entry, key) for entry in field.metadata for key in BOUNDS if hasattr(entry, key)}
        if bounds:
            found[name] = bounds
    return found


def is_allowed(value: float, bounds: dict[str, float]) -> bool:
    """What the bounds mean, written out."""
    above = value >= bounds["ge"] if "ge" in bounds else value > bounds["gt"]
    return above and (value <= bounds["le"] if "le" in bounds else value < bounds["lt"])


def answer(make: Callable[[], TrainConfig]) -> TrainConfig | str:
    try:
        return make()
    except UserError as error:
        return str(error)


def answers(name: str, value: float, folder: Path) -> list[TrainConfig | str]:
    """What a flag, a JSON file, a TOML file and Python answer, other fields as they are by default."""
    text = json.dumps(nested({name: value}))
    (folder / "c.json").write_text(text)
    group, _, leaf = name.rpartition(".")
    table = f"[{group}]\n" if group else ""
    (folder / "c.toml").write_text(f"{table}{leaf} = {value!r}\n")
    return [
        answer(lambda: parsed(f"--{name.replace('_', '-')}={value!r}")),
        answer(lambda: parsed(f"--config {folder / 'c.json'}")),
        answer(lambda: parsed(f"--config {folder / 'c.toml'}")),
        answer(lambda: with_fields(recipe(), nested({name: value}))),
    ]


def kind_of(name: str) -> type:
    return value_type(dict(leaf_fields(TrainConfig))[name])


def test_every_number_is_bounded_on_both_sides() -> None:
    numbers = [name for name, field in leaf_fields(TrainConfig) if value_type(field) in (int, float)]
    assert list(bounded()) == numbers
    assert all(len(bounds) == 2 for bounds in bounded().values())


@pytest.mark.parametrize("name", list(bounded()))
def test_each_bound_holds_for_flags_files_and_python(name: str, tmp_path: Path) -> None:
    kind, bounds = kind_of(name), bounded()[name]
    for bound in bounds.values():
        near = [bound - 1, bound, bound + 1]
        if kind is float:
            near = [math.nextafter(float(bound), -math.inf), float(bound), math.nextafter(float(bound), math.inf)]
        for value in near:
            require_agreement(name, value, tmp_path)


@given(st.data())
def test_any_number_is_taken_or_refused_everywhere(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(list(bounded())))
    numbers = st.integers(-(2**40), 2**40) if kind_of(name) is int else st.floats(allow_nan=False, allow_infinity=False)
    require_agreement(name, data.draw(numbers), tmp_path_factory.mktemp("any"))


def require_agreement(name: str, value: float, folder: Path) -> None:
    found = answers(name, value, folder)
    assert all(one == found[0] for one in found), f"{name}={value!r}: {found}"
    if not is_allowed(value, bounded()[name]):
        assert isinstance(found[0], str)
        assert found[0].startswith(f"{name}: {value!r} is not allowed; expected ")
    elif isinstance(found[0], TrainConfig):
        assert nested_value(found[0], name) == value
    else:
        assert "minibatches" in found[0], "the one rule about two fields that a single number can break by default"


def nested_value(config: TrainConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
