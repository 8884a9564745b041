from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import modelnative as mn
from modelnative.runs.training import Training
from modelnative.tasks import make_task
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.task import AnyTask
from modelnative.tasks.hops.task import Hops
from modelnative.training.curriculum import Preparation
from modelnative.training.discovery.curriculum import Discover
from modelnative.training.discovery.edits import Editor, symbol_weights
from modelnative.training.discovery.macros import explore
from modelnative.training.discovery.procedures import (
    PAD,
    Machines,
    Symbols,
    copies_feedback,
    lengths,
    solving_programs,
    write_programs,
)
from modelnative.training.discovery.search import Finding, search_stages
from modelnative.training.events import Searched
from modelnative.training.parallel import Pool

SEEDS = st.integers(0, 10**6)
TASKS = {"arithmetic": make_task("arithmetic"), "hops": make_task("hops", hops=2, size=5)}


def one_part(function: Callable[[Any], Any], parts: Iterable[Any]) -> list[Any]:
    return [function(part) for part in parts]


def editor(task: AnyTask, seed: int = 0, stage: int = -1) -> Editor:
    generator = torch.Generator().manual_seed(seed)
    problems = task.sample(torch.full((64,), stage % len(task.spec.stages)), generator)
    return Editor(symbol_weights(task, problems, True), task.spec.horizon, generator)


def check_form(task: AnyTask, procedures: Tensor) -> None:
    """Symbols first, then padding."""
    assert procedures.dtype == torch.int64
    assert procedures.shape[1] == task.spec.horizon
    assert bool(((procedures >= PAD) & (procedures < Symbols(task.spec).count)).all())
    filled = procedures != PAD
    assert bool((filled[:, :-1] | ~filled[:, 1:]).all()), "padding stands at the end alone"


def write_successes(task: AnyTask, problems: mn.Problems, program: Tensor) -> Tensor:
    """Whether actions succeed, played by themselves."""
    state, won = task.begin(problems), torch.zeros(len(problems), dtype=torch.bool)
    for token in program.t():
        step = task.step(state, token)
        state, won = step.state, won | step.success
    return won


def forbid_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    def oracle(*_: object) -> Tensor:
        raise AssertionError("the oracle was asked")

    for task in (Arithmetic, Hops):
        monkeypatch.setattr(task, "oracle", oracle)


@pytest.mark.parametrize("name", TASKS)
@given(seed=SEEDS)
@settings(max_examples=10)
def test_what_a_procedure_writes_succeeds_where_the_procedure_does(name: str, seed: int) -> None:
    task = TASKS[name]
    edit = editor(task, seed)
    stage = torch.arange(40) % len(task.spec.stages)
    problems = task.sample(stage, edit.generator)
    procedures = edit.random(30)
    if name == "hops":  # random ones hardly ever succeed
        names = {Symbols(task.spec)._name(s): s for s in range(Symbols(task.spec).count)}
        right = [names["{start}"], names["ANS"], names["{shown, 1 before}"], PAD]
        procedures[0] = torch.tensor(right)
    success, _ = Machines(task, True, one_part).play(procedures, problems)
    for row, procedure in enumerate(procedures):
        program, written = write_programs(task, procedure.expand(len(problems), -1), problems)
        assert torch.equal(written, success[row])
        assert torch.equal(write_successes(task, problems, program), success[row])


@pytest.mark.parametrize("name", TASKS)
@given(seed=SEEDS)
@settings(max_examples=20)
def test_edits_keep_the_form_of_procedures(name: str, seed: int) -> None:
    task = TASKS[name]
    edit = editor(task, seed)
    parents = edit.random(200)
    children = edit.edited(parents, parents, (0.5, 0.5))
    neighbors, weights = edit.neighbors(children[0])
    check_form(task, torch.cat([parents, children, neighbors, edit.shortened(parents[0])]))
    assert bool((children != parents).any())
    assert len(weights) == len(neighbors)
    assert bool((lengths(neighbors) - lengths(children[:1]) >= -1).all())


def test_neighbors_have_every_single_replacement_insertion_deletion_and_repetition() -> None:
    edit = Editor(torch.tensor([0.5, 0.25, 0.25]), 4, torch.Generator().manual_seed(0))
    found = {tuple(row) for row in edit.neighbors(torch.tensor([0, 1, PAD, PAD]))[0].tolist()}
    replaced = {(s, 1) for s in range(3)} | {(0, s) for s in range(3)}
    inserted = {(s, 0, 1) for s in range(3)} | {(0, s, 1) for s in range(3)} | {(0, 1, s) for s in range(3)}
    others = {(0, 1), (0,), (1,), (0, 0, 1), (0, 1, 1), (0, 1, 0, 1)}
    assert found == {each + (PAD,) * (4 - len(each)) for each in replaced | inserted | others}


def test_a_symbol_without_effect_is_idle() -> None:
    task = TASKS["arithmetic"]
    symbols = Symbols(task.spec)
    digit, key = symbols.spec.vocabulary.index("7"), symbols.spec.vocabulary.index("RCL")
    procedure = torch.full((1, task.spec.horizon), PAD)
    procedure[0, :2] = torch.tensor([key, digit])  # nothing is stored yet
    problems = task.sample(torch.zeros(16, dtype=torch.int64), torch.Generator().manual_seed(0))
    _, idle = Machines(task, False, one_part).play(procedure, problems)
    assert idle[0].tolist() == [True, False, *[True] * (task.spec.horizon - 2)]


def test_macros_lead_to_conditions_that_no_shorter_one_leads_to() -> None:
    task = TASKS["hops"]
    edit = editor(task)
    problems = task.sample(torch.full((16,), 1), edit.generator)
    machines = Machines(task, True, one_part)
    conditions: list[int] = []
    for level in explore(machines, edit, problems):
        check_form(task, level.macros)
        if len(level.macros):
            conditions += machines.conditions(level.macros, problems[:8])[0].tolist()
    assert len(conditions) > 20
    assert len(set(conditions)) == len(conditions)


def found_for(task: AnyTask, seed: int, threads: int = 1) -> list[Finding]:
    none = torch.empty(0, task.spec.horizon, dtype=torch.int64)
    stages = range(len(task.spec.stages))
    findings = search_stages(task, stages, none, seed, 50_000_000, Pool(threads).map)
    return [finding for finding in findings if finding.ended]


def test_finds_procedures_without_an_oracle_whatever_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_oracles(monkeypatch)
    task = TASKS["hops"]
    one, three = found_for(task, 3), found_for(task, 3, threads=3)
    assert [finding.found for finding in one] == [True, True]
    assert all(bool(copies_feedback(task, finding.procedures)) for finding in one)
    for a, b in zip(one, three, strict=True):
        assert torch.equal(a.procedures, b.procedures)
        assert a.steps == b.steps
    problems = task.sample(torch.ones(2000, dtype=torch.int64), torch.Generator().manual_seed(9), "all")
    assert bool(Machines(task, True, one_part).play(one[1].procedures[:1], problems)[0].all())


def test_a_search_ends_at_its_budget() -> None:
    task = make_task("countdown")
    none = torch.empty(0, task.spec.horizon, dtype=torch.int64)
    findings = list(search_stages(task, range(len(task.spec.stages)), none, 0, 100_000, one_part))
    assert findings[-1].ended
    assert not findings[-1].found
    assert findings[-1].stage == 0
    assert findings[-1].solved < 1


def kinds(count: int = 30) -> mn.ToolTask:
    """Which of two tools is right depends on the problem, so no one procedure solves the stage."""

    @mn.tool
    def double(x: int) -> int:
        """Twice as much."""
        return 2 * x

    @mn.tool
    def triple(x: int) -> int:
        """Three times as much."""
        return 3 * x

    return mn.ToolTask(
        [double, triple],
        {"one": {"x": range(1, count), "kind": ["two", "three"]}},
        lambda problem: problem["x"] * (2 if problem["kind"] == "two" else 3),
    )


def test_several_procedures_solve_what_no_single_one_does() -> None:
    task = kinds()
    none = torch.empty(0, task.spec.horizon, dtype=torch.int64)
    alone = [f for f in search_stages(task, range(1), none, 0, 4_000_000, one_part) if f.ended]
    assert not alone[0].found
    assert alone[0].solved < 0.8
    found = next(f for f in search_stages(task, range(1), none, 0, 10_000_000, one_part, several=True) if f.ended)
    assert found.found
    assert found.several
    assert found.solved >= 0.99
    text = {Symbols(task.spec).text(each) for each in found.procedures}
    assert {"double x ANS R1", "triple x ANS R1"} <= text


def test_the_hint_for_a_problem_is_the_first_procedure_that_solves_it() -> None:
    task, spec = kinds(), kinds().spec
    names = {Symbols(spec)._name(s): s for s in range(Symbols(spec).count)}
    rows = [[names[word] for word in f"{tool} x ANS R1".split()] for tool in ("double", "triple")]
    procedures = torch.full((1, 3, spec.horizon), PAD)
    procedures[0, :2, :4] = torch.tensor(rows)
    problems = task.sample(torch.zeros(200, dtype=torch.int64), torch.Generator().manual_seed(0), "all")
    programs = solving_programs(task, procedures, problems)
    assert bool(write_successes(task, problems, programs).all())
    assert set(programs[:, 0].tolist()) == {names["double"], names["triple"]}
    only = solving_programs(task, procedures[:, 1:], problems)
    solved = write_successes(task, problems, only)
    assert 0 < int(solved.sum()) < len(problems)
    assert bool((only[~solved] == spec.end).all())


def prepared(curriculum: Discover, task: AnyTask, most: int | None = None) -> Discover:
    """Prepare it; stop after the end of the search for `most` stages."""
    ended = 0
    for event in curriculum.prepare(task, Preparation(0, "train", one_part)):
        ended += event.ended
        if ended == most:
            break
    return curriculum


def test_an_interrupted_search_continues_with_the_next_stage() -> None:
    task = TASKS["hops"]
    whole = prepared(Discover.for_task(task), task)
    first = prepared(Discover.for_task(task), task, most=1)
    rest = Discover.for_task(task)
    rest.load_state_dict(copy.deepcopy(first.state_dict()))
    assert int(rest.searched) == 1
    prepared(rest, task)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], tensor), name
    assert torch.equal(rest.lengths, whole.lengths)
    assert list(rest.prepare(task, Preparation(0, "train", one_part))) == []
    assert rest.summary(task)["H1"]["procedures"] == ["{start} ANS {shown, 1 before}"]


def test_a_stage_without_a_procedure_has_no_hints() -> None:
    task = make_task("countdown")
    curriculum = Discover.for_task(task, mn.CurriculumConfig(search_budget=10_000))
    prepared(curriculum, task)
    assert not bool(curriculum.guided.any())
    assert bool(curriculum.complete.all())
    draw = curriculum.draw(100, torch.Generator().manual_seed(0), 0.0)
    assert bool((draw.own_tokens == task.spec.horizon).all())


def test_learns_a_stage_without_its_oracle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forbid_oracles(monkeypatch)
    config = mn.with_fields(mn.recipe(curriculum="discover"), {"stages": 1, "updates": 300, "seed": 1})
    events = list(Training.start(tmp_path / "run", config).events())
    searched = [event for event in events if isinstance(event, Searched)]
    assert searched[-1].found
    finished = events[-1]
    assert isinstance(finished, mn.Finished)
    first = finished.evaluation.counts[0]
    assert first.stage == "T0"
    assert first.rate == 1.0
