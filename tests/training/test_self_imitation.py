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
from modelnative.training.self_imitation.likeness import SURE, Likeness
from modelnative.training.self_imitation.search import ProblemSearch
from modelnative.training.self_imitation.solutions import NUMBERS, POLICY, SEARCH, Solutions
from modelnative.training.self_imitation.variation import FARTHEST, _moved, lift, play_varied
from modelnative.training.trainer import Trainer

TASKS: dict[str, AnyTask] = {
    "arithmetic": make_task("arithmetic"),
    "paper": make_task("expressions", operators=2, feedback="paper"),
    "bill": bill.make(),
}
TEXT = make_task("expressions", operators=2)


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


def procedures(*texts: str) -> Tensor:
    """Procedures for `TEXT`, a place of the context written as a number: `0 MUL 2 ANS`."""
    rows = torch.full((len(texts), TEXT.spec.horizon), PAD)
    for row, text in zip(rows, texts, strict=True):
        tokens = len(TEXT.spec.vocabulary)
        numbers = [tokens + int(w) if w.isdigit() else TEXT.spec.vocabulary.index(w) for w in text.split()]
        row[: len(numbers)] = torch.tensor(numbers)
    return rows


def test_copies_are_moved_together_and_other_symbols_are_not() -> None:
    problems = TEXT.sample(torch.ones(200, dtype=torch.int64), generator())
    weights, tokens = symbol_weights(TEXT, problems, False), len(TEXT.spec.vocabulary)
    before = procedures("0 MUL 2 ADD 4 ANS").expand(2000, -1)
    after = _moved(before, TEXT, weights, generator())
    by = after - before
    changed = by.any(1)
    assert 0.1 < float(changed.float().mean()) < 0.5
    assert not bool(by[:, [1, 3, 5]].any())
    assert set(by.unique().tolist()) == set(range(-FARTHEST, FARTHEST + 1))
    for row in by[changed].tolist():
        moved = [row[0], row[2], row[4]]
        assert len(set(moved) - {0}) == 1, "all by as much"
        assert moved == sorted(moved, key=abs), "from some place of the context on"
    assert bool((after[changed][:, [0, 2, 4]] >= tokens).all())


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


def test_problems_are_alike_for_a_procedure_if_they_differ_in_what_it_copies_alone() -> None:
    problems = filled(TEXT).others[1][:4000]
    texts = [TEXT.render(problems, i).removeprefix("compute ") for i in range(len(problems))]
    row = next(i for i, text in enumerate(texts) if text[1::2] == "+*" and len(text) == 5)
    likeness = Likeness(TEXT, problems)
    alike = likeness.alike(procedures("2 MUL 4 ADD 0 ANS")[0], problems.context[row])
    assert [texts[i] for i in alike.nonzero()[:, 0]] == [t for t in texts if len(t) == 5 and t[1::2] == "+*"]
    alike = likeness.alike(procedures("2 MUL 4 ANS")[0], problems.context[row])
    assert 1 < int(alike.sum()) < 200, "those that begin with the same digit"
    assert all(texts[i][0] == texts[row][0] for i in alike.nonzero()[:, 0])


def test_what_solves_a_problem_but_no_others_that_are_alike_is_a_coincidence() -> None:
    problems = filled(TEXT).others[1][:4000]
    texts = [TEXT.render(problems, i).removeprefix("compute ") for i in range(len(problems))]
    row = next(i for i, text in enumerate(texts) if text.startswith(("2+2*", "2*2+")))
    right = "2 MUL 4 ADD 0 ANS" if texts[row][1] == "+" else "0 MUL 2 ADD 4 ANS"
    wrong = "0 ADD 2 ADD 4 ANS" if texts[row][1] == "*" else "0 MUL 4 ADD 2 ANS"
    both = procedures(right, wrong)
    solved = problems[torch.tensor([row, row])]
    assert bool(write_programs(TEXT, both, solved)[1].all()), "each gets the right number"
    support, coincidence = Likeness(TEXT, problems).support(both, solved)
    assert coincidence.tolist() == [False, True]
    assert support[0] > 0.95 * SURE
    assert support[1] < 0.5 * SURE


def test_where_the_context_says_nothing_no_success_is_a_coincidence() -> None:
    task = TASKS["paper"]
    problems = filled(task).others[1]
    procedure = torch.full((1, task.spec.horizon), PAD)
    likeness = Likeness(task, problems)
    support, coincidence = likeness.support(procedure, problems[:1])
    assert support.tolist() == [SURE * 1 // (128 + 2)], "it solves none of 128"
    assert not bool(coincidence.any())
    assert likeness.support(procedure[:0], problems[:0])[0].tolist() == []


def test_for_a_procedure_that_copies_nothing_all_problems_are_alike() -> None:
    task = bill.make()
    problems = filled(task).others[0]
    program = task.oracle(problems[:1])  # its tokens name the operands, whose digits are not copied
    procedure = torch.where(program == task.spec.end, PAD, program)
    likeness = Likeness(task, problems)
    assert len(likeness.others(procedure[0], problems[:1])) == len(problems) - 1
    support, coincidence = likeness.support(procedure, problems[:1])
    assert coincidence.tolist() == [False]
    assert support[0] == SURE * 129 // 130, "one procedure solves all bills"


def test_without_other_problems_that_are_alike_a_success_counts_as_a_coincidence() -> None:
    problems = filled(TEXT).others[1][:1]
    assert Likeness(TEXT, problems).support(procedures("0 ANS"), problems)[1].tolist() == [False], "there is no other"
    problems = filled(TEXT).others[1][:20]
    assert Likeness(TEXT, problems).support(procedures("0 ANS"), problems[:1])[1].tolist() == [True]


def test_the_table_holds_right_programs_where_the_context_tells_problems_apart() -> None:
    table, chance = filled(TEXT), generator(2)
    for stage, turns in enumerate((10, 40)):
        search = ProblemSearch(TEXT, table, stage)
        for _ in range(turns):
            search.turn(chance)
    known = table.known(1)
    assert len(known) > 0.5 * int(table.size[1])
    pool = table.pools[1][known]
    # The same program for the same tree with other operands, in the places where they stand now.
    moved = torch.where(pool.operands > 0, pool.operands % 9 + 1, 0)
    other, fits = TEXT._checked(pool.stage, pool.shape, pool.operators, moved, "all")
    other = TEXT._with_context(other)
    apart = fits & torch.tensor([len(set(row[:3])) == 3 for row in pool.operands.tolist()])
    programs = table.lookup(pool, TEXT.spec.end)
    again = lift(TEXT, programs, pool.context, symbol_weights(TEXT, pool, False), chance)
    assert float(write_programs(TEXT, again, other)[1][apart].float().mean()) > 0.9


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
    for kind, name in ((ProblemSearch, "turn"), (Machines, "play"), (Likeness, "support")):
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
