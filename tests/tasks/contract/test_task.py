from __future__ import annotations

import dataclasses
import sys
import types
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import toolbox
import torch
from hypothesis import given
from hypothesis import strategies as st

import modelnative.tasks
from modelnative.errors import UserError
from modelnative.tasks import TASKS, make_task, option_parameters, task_entries, task_name
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.task import Task, in_split, program_length, require
from modelnative.tasks.tutorial.task import Tutorial

MASK = 2**64 - 1
keys = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50)


def splitmix64(key: int) -> int:
    """Steele et al. (2014), as published: the output for the state `key` · golden ratio."""
    z = key * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


@given(keys)
def test_split_is_splitmix64_of_the_key(values: list[int]) -> None:
    expected = [(splitmix64(v & MASK) >> 11) / 2**53 < 0.2 for v in values]
    assert in_split(torch.tensor(values), "heldout").tolist() == expected


def test_splitmix64_of_the_test_agrees_with_the_published_sequence() -> None:
    # The first outputs of the reference implementation (prng.di.unimi.it/splitmix64.c) seeded with 1234567.
    golden, inverse = 0x9E3779B97F4A7C15, pow(0x9E3779B97F4A7C15, -1, 2**64)
    states = [1234567 + golden * i for i in range(1, 4)]
    outputs = [splitmix64(state * inverse & MASK) for state in states]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(keys, st.floats(0, 1))
def test_splits_partition_the_keys(values: list[int], heldout: float) -> None:
    key = torch.tensor(values)
    train, held = in_split(key, "train", heldout), in_split(key, "heldout", heldout)
    assert bool((train ^ held).all())
    assert bool(in_split(key, "all", heldout).all())


@given(keys, st.randoms())
def test_split_depends_on_the_key_alone(values: list[int], random: object) -> None:
    key = torch.tensor(values)
    alone = [bool(in_split(k[None], "heldout")) for k in key]
    assert in_split(key, "heldout").tolist() == alone


@pytest.mark.parametrize("heldout", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_share_of_the_held_out_split(heldout: float) -> None:
    share = in_split(torch.arange(100_000), "heldout", heldout).double().mean().item()
    assert share == pytest.approx(heldout, abs=5 * (heldout * (1 - heldout) / 100_000) ** 0.5)


def test_unknown_split() -> None:
    with pytest.raises(UserError, match=r"split: unknown value 'test'.*Allowed: all, train, heldout"):
        in_split(torch.arange(3), "test")


@given(st.lists(st.integers(0, 6), min_size=1, max_size=10))
def test_program_length_counts_the_tokens_before_the_padding(lengths: list[int]) -> None:
    program = torch.tensor([[1] * length + [9] * (6 - length) for length in lengths])
    assert program_length(program, end=9).tolist() == lengths


def test_spec_finds_stages_and_tokens_by_name() -> None:
    spec = Arithmetic().spec
    assert [spec.stage_index(stage) for stage in spec.stages] == [0, 1, 2]
    assert spec.token_ids(list(spec.vocabulary)) == list(range(18))
    with pytest.raises(UserError, match=r"stage: unknown value 'T3'.*Allowed: T0, T1, T2"):
        spec.stage_index("T3")
    with pytest.raises(UserError, match="token: unknown value 'MULL'; did you mean 'MUL'\\?"):
        spec.token_ids(["1", "MULL"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.horizon = 3


def test_require_says_field_value_and_what_is_allowed() -> None:
    require(True, "horizon", 3, "at least 12")
    with pytest.raises(UserError, match=r"^horizon: 3 is not allowed; expected at least 12$"):
        require(False, "horizon", 3, "at least 12")


# make_task


@pytest.mark.parametrize("name", TASKS)
def test_make_task_by_name(name: str) -> None:
    task = make_task(name)
    assert isinstance(task, Task)
    assert task.spec.name == name
    assert "\n" not in TASKS[name].summary


EMPTY = [
    *((name, {}) for name in TASKS),
    ("expressions", {"feedback": "paper"}),
    ("countdown", {"tries": 5, "feedback": "tried"}),
]


@pytest.mark.parametrize(("name", "options"), EMPTY)
def test_no_problems_are_a_batch_too(name: str, options: dict[str, object]) -> None:
    """As in a search that has nothing left to try, or a process without a share of the episodes."""
    task = make_task(name, **options)
    none = torch.empty(0, dtype=torch.int64)
    problems = task.sample(none, torch.Generator().manual_seed(0))
    state = task.begin(problems)
    step = task.step(state, none)
    width = task.spec.feedback_width
    assert task.feedback(state).shape == step.feedback.shape == (0, width)
    assert task.oracle(problems).shape == (0, task.spec.horizon)
    assert step.reward.shape == step.done.shape == (0,)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("arithmetic", {"feedback": "none", "reward": "potential", "horizon": 15, "gamma": 0.5}),
        ("tutorial", {"horizon": 7}),
    ],
)
def test_options_rebuild_the_task(name: str, options: dict[str, object]) -> None:
    task = make_task(name, **options)
    assert task.options() == options
    assert make_task(name, **task.options()).spec == task.spec


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("arithmetik", {}, "task: unknown value 'arithmetik'; did you mean 'arithmetic'"),
        ("", {}, "task: unknown value ''"),
        ("arithmetic", {"horizn": 3}, "option of task arithmetic: unknown value 'horizn'; did you mean 'horizon'"),
        ("tutorial", {"reward": "outcome"}, "option of task tutorial: unknown value 'reward'. Allowed: horizon"),
        ("arithmetic", {"horizon": 11}, "horizon: 11 is not allowed; expected at least 12"),
        ("arithmetic", {"feedback": "displai"}, "feedback: unknown value 'displai'; did you mean 'display'"),
        ("tutorial", {"horizon": 8}, "horizon: 8 is not allowed; expected 6 or 7"),
        ("no.such.module:Task", {}, "cannot import no.such.module:Task"),
        ("modelnative.tasks.tutorial.task:Nope", {}, "cannot import modelnative.tasks.tutorial.task:Nope"),
        (":Task", {}, "cannot import :Task"),
        ("arithmetik", {}, "or your own as module:name, such as mytasks:MyTask"),
        ("my.tasks.Mine", {}, "expected a colon before the last name: my.tasks:Mine"),
        ("mine.py", {}, "expected the name of a task in the file: mine:NAME"),
        (3, {}, "task: int is not allowed; expected its name"),
        (Tutorial, {}, "task: the class Tutorial is not allowed; expected its name"),
        ("modelnative.tasks.calculator:LIMIT", {}, "to be a subclass of Task"),
        ("builtins:dict", {}, "expected builtins:dict to be a subclass of Task.*; it is the class dict"),
        (
            "toolbox:nothing",
            {},
            "expected a function that says that it returns a task: annotate it, as in def nothing(...) -> Task:",
        ),
        ("wrong:unannotated", {}, "annotate it, as in def unannotated(...) -> Task:"),
        ("wrong:lies", {}, "task: 'wrong:lies' is not allowed; it returned int; expected a task"),
        ("os:system", {"command": "touch PWNED"}, "task: 'os:system' is not allowed; expected a function that says"),
        ("subprocess:Popen", {"args": ["touch", "PWNED"]}, "it is the class Popen"),
        ("modelnative.tasks:make_task", {"name": "os:system"}, "expected a function that says that it returns a task"),
        ("toolbox:double", {}, "it is a tool; expected a task with this tool: ToolTask"),
        ("wrong:Empty", {}, "task: Empty has no spec; set self.spec = TaskSpec(...) in its __init__"),
        (
            "wrong:Unfinished",
            {},
            "'wrong:Unfinished' cannot be made; Unfinished lacks required methods of Task: begin,",
        ),
        ("wrong:Failing", {}, "'wrong:Failing' cannot be made; ZeroDivisionError: division by zero (wrong.py, line"),
        ("wrong:leaves", {}, "'wrong:leaves' cannot be made; SystemExit: 3 (wrong.py, line"),
        ("wrong:same", {}, "it returned the class Tutorial; expected a task: Tutorial()"),
        ("wrong:needs", {}, "'size' is missing; it has no default: give it one, or set it, as in --options size=VALUE"),
        ("wrong:Empty", {"size": 3}, "option of task wrong:Empty: size=3 is not allowed; this task has no options"),
        ("wrong:Further", {"steps": 8}, "horizon: 8 is not allowed; expected 6 or 7"),
        ("wrong:Further", {"horizn": 7}, "'wrong:Further' cannot be made; TypeError: "),
        ("toolbox:make", {"cuont": 3}, "option of task toolbox:make: unknown value 'cuont'; did you mean 'count'"),
        ("toolbox:make", {"count": "3"}, "count: '3' is not allowed; expected int"),
        ("toolbox:TASK", {"count": 3}, "option of task toolbox:TASK: count=3 is not allowed; expected no options"),
        ("modelnative.tasks.tools.task:ToolTask", {}, "option of task .*: 'tools' is missing; it has no default"),
    ],
)
def test_make_task_refuses(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_task(name, **options)
    assert all(part in str(caught.value) for part in message.split(".*"))


def test_options_pass_on_to_a_superclass_and_annotations_may_be_for_a_type_checker_alone() -> None:
    assert make_task("wrong:Further", steps=7).spec.horizon == 7
    assert make_task("wrong:Further", steps=7, unused=3).spec.horizon == 7
    assert list(option_parameters("wrong:Further")) == ["steps"]


def test_a_function_says_by_its_annotation_that_it_makes_a_task() -> None:
    assert make_task("wrong:unresolved", name=7).spec.horizon == 7
    assert make_task("wrong:quoted").spec.horizon == 6
    assert make_task("wrong:partial").spec.horizon == 7


def test_make_task_by_import_string(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_worlds")
    module.Mine = type("Mine", (Tutorial,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_worlds", module)
    task = make_task("my_worlds:Mine", horizon=7)
    assert type(task).__name__ == "Mine"
    assert task.spec.horizon == 7


def test_make_task_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "modelnative.tasks"
    plugins = EntryPoints(
        [
            EntryPoint("mine", "modelnative.tasks.tutorial.task:Tutorial", group),
            EntryPoint("arithmetic", "modelnative.tasks.tutorial.task:Tutorial", group),
        ]
    )
    monkeypatch.setattr(modelnative.tasks, "entry_points", lambda **selection: plugins.select(**selection))
    assert list(task_entries()) == ["mine", *TASKS]
    assert isinstance(make_task("mine"), Tutorial)
    assert isinstance(make_task("arithmetic"), Arithmetic), "a plug-in cannot replace a task of the library"
    with pytest.raises(UserError, match="did you mean 'mine'"):
        make_task("mines")


def test_make_task_by_a_function_or_as_it_stands() -> None:
    assert make_task("toolbox:make").count(0) == 40
    assert make_task("toolbox:make", count=30).count(0) == 30
    assert make_task("toolbox:TASK") is toolbox.TASK
    assert (list(option_parameters("toolbox:make")), option_parameters("toolbox:TASK")) == (["count"], {})


def test_a_task_is_named_by_where_it_stands() -> None:
    assert task_name(toolbox.TASK) == "toolbox:TASK"
    with pytest.raises(UserError, match=r"task: this ToolTask cannot be found again .* 'mytools:make' for a function"):
        task_name(toolbox.make())
