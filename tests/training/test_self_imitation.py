from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bill
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import modelnative as mn
from modelnative.runs.training import Training
from modelnative.tasks import make_task
from modelnative.tasks.contract.task import AnyTask, Problems, in_split
from modelnative.tasks.expressions.task import Expressions
from modelnative.tasks.tools.task import ToolTask
from modelnative.training.discovery.edits import symbol_weights
from modelnative.training.discovery.procedures import PAD, Machines, write_programs
from modelnative.training.self_imitation.curriculum import SelfImitation
from modelnative.training.self_imitation.search import ProblemSearch
from modelnative.training.self_imitation.solutions import NUMBERS, POLICY, SEARCH, Solutions
from modelnative.training.self_imitation.variation import lift, play_varied
from modelnative.training.trainer import Trainer

TASKS: dict[str, AnyTask] = {
    "arithmetic": make_task("arithmetic"),
    "paper": make_task("expressions", operators=2, feedback="paper"),
    "bill": bill.make(),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def forbid_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    def oracle(*_: object) -> Tensor:
        raise AssertionError("the oracle was asked")

    for task in (Expressions, ToolTask):
        monkeypatch.setattr(task, "oracle", oracle)


def write_successes(task: AnyTask, problems: Problems, program: Tensor) -> tuple[Tensor, Tensor]:
    """Whether actions succeed, played by themselves, and whether any of them had no effect."""
    state, won, idle = task.begin(problems), *torch.zeros(2, len(problems), dtype=torch.bool)
    for token in program.t():
        step = task.step(state, token)
        state, won, idle = step.state, won | step.success, idle | (step.invalid & (token != task.spec.end))
    return won, idle


@pytest.mark.parametrize("name", TASKS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=5)
def test_what_a_varied_program_wrote_succeeds_without_keys_that_have_no_effect(name: str, seed: int) -> None:
    task, chance = TASKS[name], generator(seed)
    problems = task.sample(torch.zeros(400, dtype=torch.int64), chance)
    weights = symbol_weights(task, problems, False)
    nothing = torch.full((400, task.spec.horizon), PAD)
    played = play_varied(task, nothing, problems, weights, chance)
    for _ in range(5):
        if len(played.rows):
            parents = played.procedures[torch.randint(len(played.rows), (400,), generator=chance)]
            played = play_varied(task, parents, problems, weights, chance)
    solved = problems[played.rows]
    won, idle = write_successes(task, solved, played.programs)
    assert bool(won.all())
    assert not bool(idle.any())
    programs, success = write_programs(task, played.procedures, solved)
    assert bool(success.all())
    assert torch.equal(programs, played.programs)
    assert 0 < played.steps <= 400 * 2 * task.spec.horizon


def test_a_lifted_program_writes_the_same_for_its_problem() -> None:
    task = TASKS["arithmetic"]
    problems = task.sample(torch.full((200,), 1), generator())
    programs, weights = task.oracle(problems), symbol_weights(task, problems, False)
    procedures = lift(task, programs, problems.context, weights, generator())
    assert bool((procedures[:, 0] >= len(task.spec.vocabulary)).all()), "an operand is copied"
    written, success = write_programs(task, procedures, problems)
    assert bool(success.all())
    assert torch.equal(written, programs)


def filled(task: AnyTask) -> Solutions:
    table = Solutions(len(task.spec.stages), task.spec.horizon)
    table.fill(task, "train")
    return table


def test_the_table_has_distinct_training_problems_and_finds_them_again() -> None:
    for task in TASKS.values():
        table = filled(task)
        for stage, pool in enumerate(table.pools):
            assert bool(in_split(pool.key, "train").all())
            assert len(pool.key.unique()) == len(pool) == int(table.size[stage])
            assert torch.equal(table.rows(pool), torch.arange(len(pool)))
            others = task.sample(torch.full((100,), stage), generator(), "heldout")
            assert bool((table.rows(others) == -1).all())
    assert int(filled(TASKS["bill"]).size[0]) == TASKS["bill"].count(0, "train"), "a small stage is listed whole"


@pytest.mark.parametrize(("stages", "horizon"), [(1, 4), (2, 400), (5, 30), (12, 5000)])
def test_the_memory_of_the_table_is_bounded(stages: int, horizon: int) -> None:
    assert Solutions(stages, horizon).programs.numel() <= max(NUMBERS, stages * horizon)


def test_the_table_keeps_the_program_that_most_problems_share_then_the_shortest() -> None:
    task = TASKS["arithmetic"]
    table, end, horizon = filled(task), task.spec.end, task.spec.horizon

    def store(row: int, tokens: list[int], support: int, by: int) -> None:
        program = torch.full((1, horizon), end)
        program[0, : len(tokens)] = torch.tensor(tokens)
        table.store(0, torch.tensor([row]), program, torch.tensor([support]), end, by)

    def stored(row: int) -> list[int]:
        program = table.lookup(table.pools[0][torch.tensor([row])], end)[0]
        return program[program != end].tolist()

    assert stored(3) == []
    store(3, [1, 2], 1, SEARCH)
    store(3, [1, 2, 3], 5, POLICY)
    assert stored(3) == [1, 2, 3], "a longer one that more problems share"
    store(3, [1], 4, POLICY)
    assert stored(3) == [1, 2, 3]
    store(3, [2, 3], 5, POLICY)
    assert stored(3) == [2, 3], "a shorter one"
    store(3, [3, 3], 5, POLICY)
    assert stored(3) == [2, 3]
    store(3, [2, 1], 5, POLICY)
    assert stored(3) == [2, 1], "of equal ones always the same"
    assert table.counts(0)[1:] == (0, 1), "the search solved it first"
    assert stored(4) == []


def test_a_search_finds_programs_of_a_task_of_tools_that_several_problems_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forbid_oracles(monkeypatch)
    task, chance = TASKS["bill"], generator(1)
    table = filled(task)
    search = ProblemSearch(task, table, 0)
    for _ in range(20):
        assert search.turn(chance) > 0
    known = table.known(0)
    total, by_policy, by_search = table.counts(0)
    assert (total, by_policy, by_search) == (len(table.pools[0]), 0, len(known))
    assert len(known) >= 20
    pool = table.pools[0][known]
    assert bool(write_successes(task, pool, table.lookup(pool, task.spec.end))[0].all())
    assert int(table.support.max()) > 3, "a procedure that several of 128 problems share"


def double() -> ToolTask:
    @mn.tool
    def twice(x: int) -> int:
        """Twice as much."""
        return 2 * x

    return ToolTask([twice], {"one": {"x": range(1, 99)}}, lambda problem: 2 * int(problem["x"]))


def started(**changes: Any) -> Trainer:
    config = mn.with_fields(mn.recipe("expressions", curriculum="self-imitation"), {"episodes": 128, **changes})
    return Trainer(TASKS["paper"], config)


def test_only_known_programs_that_the_policy_fails_are_imitated_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_oracles(monkeypatch)
    trainer = started()
    assert isinstance(trainer.curriculum, SelfImitation)
    table, seen = trainer.curriculum.solutions, 0
    for _ in range(6):
        draw, problems, plan = trainer.draw()
        assert bool(in_split(problems.key, "train").all()), "no held-out problem is searched, played or imitated"
        rollout = trainer.play(problems, plan)
        imitated, rows = draw.own_tokens == 0, table.rows(problems)
        seen += int(imitated.sum())
        assert bool((rows[imitated] >= 0).all())
        assert bool(table.failed[problems.stage[imitated], rows[imitated]].all())
        assert bool(rollout.success[imitated].all())
        assert not bool(rollout.loss_mask[:, imitated].any()), "the policy gradient does not see them"
        assert bool(rollout.loss_mask[0, ~imitated].all())
        trainer.update()
    assert seen > 20
    table.misses.zero_()
    assert not bool((trainer.draw()[0].own_tokens == 0).any()), "what the policy solves it goes on doing in its own way"


def test_without_a_search_the_table_has_the_policys_own_successes(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name in ((ProblemSearch, "turn"), (ProblemSearch, "offer"), (Machines, "play")):
        monkeypatch.setattr(kind, name, None)
    changes = {"episodes": 512, "curricula": {"search": False}}
    trainer = Trainer(double(), mn.with_fields(mn.recipe(curriculum="self-imitation"), changes))
    assert isinstance(trainer.curriculum, SelfImitation)
    while not trainer.curriculum.solutions.counts(0)[1] and trainer.updates < 60:
        trainer.update()
    summary = trainer.curriculum.summary(trainer.task)["one"]
    assert summary["found_by_search"] == summary["search_actions"] == 0
    assert summary["found_by_policy"] > 0
    table, end = trainer.curriculum.solutions, trainer.task.spec.end
    pool = table.pools[0][table.known(0)]
    assert bool(write_successes(trainer.task, pool, table.lookup(pool, end))[0].all())


@pytest.mark.learning
def test_a_stage_is_learned_without_its_oracle_and_the_result_says_who_found_what(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forbid_oracles(monkeypatch)
    task = make_task("expressions", operators=1, feedback="paper")
    config = mn.with_fields(
        mn.recipe("expressions", curriculum="self-imitation"),
        {"options": task.options(), "updates": 150, "optimizer": {"learning_rate": 0.01}},
    )
    events = list(Training.start(tmp_path / "run", config).events())
    finished = events[-1]
    assert isinstance(finished, mn.Finished)
    assert finished.evaluation.reaches(0.99)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    found = result["curriculum"]["E1"]
    assert found["found_by_policy"] + found["found_by_search"] == found["problems"] == task.count(0, "train")
    assert found["search_actions"] > 0
