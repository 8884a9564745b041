"""Searches for constant programs against exhaustive search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelnative.evidence import programs as module
from modelnative.evidence.programs import ExactSearch, Program, beam_search, best_program, played, successes
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import Problems, Split, State, Step, Task, TaskSpec, replace
from modelnative.tasks.tutorial.task import PROGRAMS, Tutorial

TOKENS, STATES, LENGTH = 4, 3, 4
RIGHT, WRONG = STATES, STATES + 1  # where episodes end


@dataclass
class At(State):
    """Adds the problems and where each episode stands: int64 [n]."""

    problem: Problems
    place: Tensor


class Maze(Task[Problems, At]):
    """Each problem is a random table that leads from place to place; some ways end, rightly or wrongly.

    No more of the contract than a search needs.
    """

    def __init__(self, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        # Few tables, so that different prefixes lead to the same places.
        tables = torch.randint(STATES + 2, (2, STATES, TOKENS), generator=generator)
        self.table = tables[torch.randint(2, (n,), generator=generator)]
        loose = torch.rand(self.table.shape, generator=generator) < 0.2
        self.table = torch.where(loose, torch.randint(STATES + 2, self.table.shape, generator=generator), self.table)
        self.spec = TaskSpec("maze", tuple("abcd"), ("M",), 1, 0, LENGTH, 0, TOKENS - 1)

    def problems(self) -> Problems:
        n = len(self.table)
        return Problems(torch.zeros(n, dtype=torch.int64), torch.zeros(n, 1, dtype=torch.int64), torch.arange(n))

    def begin(self, problems: Problems) -> At:
        zero = torch.zeros_like(problems.key)
        return At(zero > 0, problems, zero)

    def step(self, state: At, action: Tensor) -> Step[At]:
        after = self.table[state.problem.key, state.place.clamp(max=STATES - 1), action]
        place = torch.where(state.done, state.place, after)
        done = place >= STATES
        success = ~state.done & (place == RIGHT)
        none = torch.zeros_like(done)
        after_state = replace(state, done=done, place=place)
        return Step(after_state, action.new_empty(len(action), 0), success.float(), done, success, none)

    def solved(self, program: Program) -> int:
        """How many problems a program solves: one at a time, in plain Python."""
        count = 0
        for table in self.table.tolist():
            place = 0
            for token in program:
                place = table[place][token]
                if place >= STATES:
                    break
            count += place == RIGHT
        return count

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> Problems:
        raise NotImplementedError

    def feedback(self, state: At) -> Tensor:
        raise NotImplementedError

    def oracle(self, problems: Problems) -> Tensor:
        raise NotImplementedError

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[Problems]:
        raise NotImplementedError

    def parse(self, stage: int, text: str) -> Problems:
        raise NotImplementedError

    def render(self, problems: Problems, i: int) -> str:
        raise NotImplementedError

    def records(self, problems: Problems, state: At) -> list[dict[str, Any]]:
        raise NotImplementedError

    def registers(self, state: At, i: int) -> dict[str, str]:
        raise NotImplementedError


EVERY = [p for k in range(1, LENGTH + 1) for p in itertools.product(range(TOKENS), repeat=k)]
mazes = st.builds(Maze, st.integers(1, 12), st.integers(0, 2**31))


@given(mazes, st.lists(st.sampled_from(EVERY), max_size=3))
def test_exact_search_equals_exhaustive_search(maze: Maze, tried: list[Program]) -> None:
    search = ExactSearch(maze, maze.problems(), LENGTH, set(tried), 10**6)
    assert search.run()
    assert search.best_successes == max(map(maze.solved, EVERY)) == maze.solved(search.best)


@given(mazes)
def test_a_wide_beam_equals_exhaustive_search(maze: Maze) -> None:
    found, reached = beam_search(maze, maze.problems(), LENGTH, 10**6, [])
    assert reached == LENGTH
    assert max(map(maze.solved, found)) == max(map(maze.solved, EVERY))


@given(mazes, st.sampled_from(EVERY))
def test_playing_follows_the_rules(maze: Maze, program: Program) -> None:
    assert successes(maze, maze.problems(), torch.tensor([program])) == maze.solved(program)


@given(mazes, st.integers(1, LENGTH))
def test_the_program_found_solves_as_many_problems_as_reported(maze: Maze, length: int) -> None:
    found = best_program(maze, maze.problems(), length, [(0, 1), (0, 1), (2, 3, 1)])
    assert (found.beam_width, found.max_length) == (0, length)
    assert len(found.program) <= length
    assert found.successes == maze.solved(found.program)
    assert found.successes == max(maze.solved(program) for program in EVERY if len(program) <= length)


def test_an_expensive_search_becomes_a_beam_search(monkeypatch: pytest.MonkeyPatch) -> None:
    maze = Maze(10, 3)
    exact = best_program(maze, maze.problems(), LENGTH, [])
    for name in ("PILOT_NODES", "EXACT_COST"):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, 1)
            found = best_program(maze, maze.problems(), LENGTH, [])
        assert found.beam_width >= 1
        assert found.successes == maze.solved(found.program) <= exact.successes


def test_a_narrow_beam_follows_the_proposals() -> None:
    """Nothing is solved before the last of eight keys, and only by what the proposals begin with."""

    class Deep(Maze):
        def __init__(self) -> None:
            super().__init__(2, 0)
            self.spec = TaskSpec("deep", tuple("abcd"), ("M",), 1, 0, 8, 0, TOKENS - 1)
            code = [1, 2, 1, 0, 2, 2, 0, 1]
            self.table = torch.full((2, 8, TOKENS), WRONG + 8)
            for place, token in enumerate(code):
                self.table[:, place, token] = place + 1 if place < 7 else 100

        def step(self, state: At, action: Tensor) -> Step[At]:
            after = self.table[state.problem.key, state.place.clamp(max=7), action]
            place = torch.where(state.done, state.place, after)
            done = place >= 8
            success = ~state.done & (place == 100)
            nothing = action.new_empty(len(action), 0)
            return Step(replace(state, done=done, place=place), nothing, success.float(), done, success, success)

    deep = Deep()
    code = (1, 2, 1, 0, 2, 2, 0, 1)
    found, _ = beam_search(deep, deep.problems(), 8, 2, [(*code[:7], 3), code[:5]])
    assert found[0] == code


@pytest.mark.parametrize("share", [50, pytest.param(1, marks=pytest.mark.slow)])
def test_the_best_program_of_the_tutorial(share: int) -> None:
    task = Tutorial()
    problems = Batch.cat(list(task.enumerate(2)))
    if share > 1:  # all a, b and d, and two of the pairs of c and e
        c, e = problems.operands[:, 2], problems.operands[:, 4]
        problems = problems[((c == 3) & (e == 7)) | ((c == 8) & (e == 4))]
    found = best_program(task, problems, 6, [tuple(task.spec.token_ids(PROGRAMS[2].split()))])
    assert (len(problems), found.successes, found.beam_width) == (100_000 // share, 27_100 // share, 0)


def test_programs_of_problems_are_played_row_by_row() -> None:
    maze = Maze(9, 5)
    programs = torch.randint(TOKENS, (9, LENGTH), generator=torch.Generator().manual_seed(0))
    ((problems, success, state),) = played(maze, maze.problems(), programs)
    assert problems.key.tolist() == list(range(9))
    alone = [next(played(maze, maze.problems()[i : i + 1], programs[i : i + 1]))[1].item() for i in range(9)]
    assert success.tolist() == alone
    assert bool((state.place[success] == RIGHT).all())
