"""The oracle of a task without `solve`: few programs that solve many problems, not a coincidence for each problem."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import bill
import pytest
from rich.console import Console

import modelnative as mn
from modelnative.studio.live import LiveView
from modelnative.tasks.contract.check import check_task
from modelnative.tasks.tools.task import ToolTask


def programs(task: ToolTask, stage: int = 0) -> list[str]:
    """The different programs of the oracle, as text."""
    tokens = [row for part in task.enumerate(stage) for row in task.oracle(part).tolist()]
    names, end = task.spec.vocabulary, task.spec.end
    return sorted({" ".join(names[token] for token in row if token != end) for row in tokens})


def plus(a: int, b: int) -> int:
    return a + b


def times(a: int, b: int) -> int:
    return a * b


def test_the_procedure_is_found_and_not_what_solves_a_few() -> None:
    """The shortest programs are `n * n * n * n` for a price of 8, the number as the answer, and 86 others."""
    task = bill.make()
    (program,) = programs(task)
    assert sorted(program.split()) == sorted(bill.PROCEDURE.split())
    told = f"stage 'T0': one program solves all 450 problems, '{program}', so that the agent need not read the problem"
    assert task.notes()[0].startswith(told)


@pytest.mark.parametrize("chunk", [8, 128])
def test_a_coincidence_of_numbers_is_no_program(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelnative.tasks.tools.programs.SAMPLE", chunk)
    values = {"a": range(9), "b": range(9)}
    task = ToolTask([plus, times], values, lambda p: (p["a"] + p["b"]) * p["b"], calls=2)
    assert programs(task) in (["plus a b times R1 b ANS R2"], ["plus a b times b R1 ANS R2"])
    check_task(task)


def test_problems_of_several_kinds_have_a_program_each() -> None:
    def target(problem: dict[str, Any]) -> int:
        return {"+": plus, "*": times}[problem["sign"]](problem["a"], problem["b"])

    task = ToolTask([plus, times], {"sign": ["+", "*"], "a": range(3, 30), "b": range(3, 20)}, target)
    assert len(programs(task)) == 2
    assert task.notes() == []
    check_task(task)


def test_a_sample_without_some_problems_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelnative.tasks.tools.programs.SAMPLE", 4)
    rare = {"a": 1000, "b": 3}
    listed = [*({"a": a, "b": b} for a in range(3, 20) for b in range(3, 20)), rare]
    task = ToolTask([plus, times], listed, lambda p: plus(**p) if p == rare else times(**p))
    assert len(programs(task)) == 2
    check_task(task)
    impossible = ToolTask([plus, times], listed, lambda p: 777 if p == rare else times(**p), calls=1)
    with pytest.raises(mn.UserError, match=r"1 of \d+ problems.* cannot be reached, such as a=1000 b=3 .target 777."):
        programs(impossible)


def test_train_prints_what_the_task_has_to_say(tmp_path: Path) -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, width=200)) as view:
        mn.train("toolbox:partly_broken", updates=1, out=tmp_path / "run", callbacks=[view])
    lines = out.getvalue().splitlines()
    (program,) = [line for line in lines if line.startswith("note: stage")]
    assert "one program solves all 60 problems, 'double x ANS R1'" in program
    assert any(line.startswith("note: tool mistaken: ") and "NameError: name 'rond'" in line for line in lines)


@pytest.mark.slow
@pytest.mark.learning
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_four_tools_are_learned_without_a_given_procedure(seed: int, tmp_path: Path) -> None:
    finished = mn.train("bill:make", updates=600, minutes=6.0, seed=seed, out=tmp_path / "run")
    assert finished.evaluation.total(split="train").rate > 0.95  # type: ignore[union-attr]
