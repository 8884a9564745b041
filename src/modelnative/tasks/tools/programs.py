"""The oracle's programs of a task made of tools: given by the user, or found by search."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError, choose
from modelnative.tasks.tools.interpreter import Interpreter
from modelnative.tasks.tools.problems import ProblemList, call_for, described, per_stage
from modelnative.tasks.tools.search import ProgramSearch

SHOWN = 3  # problems that a message names
SAMPLE = 128  # problems that programs are searched for at first


class OraclePrograms:
    """The programs of all problems, made for a whole stage when they are first needed.

    Args:
        interpreter: makes the calls.
        listed: the problems.
        inputs: int64 [problems, inputs], the ids of the inputs.
        targets: int64 [problems], the ids of the targets.
        solve: the programs as the user gave them (see `ToolTask`); None for a search.
        horizon: the length of the padded programs.
    """

    def __init__(
        self, interpreter: Interpreter, listed: ProblemList, inputs: Tensor, targets: Tensor, solve: Any, horizon: int
    ) -> None:
        self.interpreter, self.listed, self.inputs, self.targets = interpreter, listed, inputs, targets
        self.solve = None if solve is None else per_stage("solve", solve, listed.stages)
        self.horizon = horizon
        self._made: dict[int, Tensor | UserError] = {}
        self._lock = threading.Lock()

    def __call__(self, stage: Tensor, row: Tensor) -> Tensor:
        """Return the programs of problems from their stages and rows, int64 [n] each: int64 [n, horizon].

        Raises:
            UserError: problems of a stage have no program, or one that is not allowed.
        """
        programs = torch.empty(len(stage), self.horizon, dtype=torch.int64, device=stage.device)
        for index in stage.unique().tolist():
            mine = (stage == index).nonzero()[:, 0]
            place = row[mine] - self.listed.stage.index(index)
            programs[mine] = self._of_stage(index)[place.cpu()].long().to(stage.device)
        return programs

    def _of_stage(self, stage: int) -> Tensor:
        """The programs of all problems of a stage: int16 [problems, horizon]."""
        with self._lock:  # several threads may call
            if stage not in self._made:
                try:
                    programs = self._search(stage) if self.solve is None else self._given(stage)
                    end = self.interpreter.vocabulary.end
                    padded = [[*program, *[end] * (self.horizon - len(program))] for program in programs]
                    self._made[stage] = torch.tensor(padded, dtype=torch.int16)
                except UserError as error:
                    self._made[stage] = error
            found = self._made[stage]
        if isinstance(found, UserError):
            raise found
        return found

    def _rows(self, stage: int) -> list[int]:
        return [row for row, s in enumerate(self.listed.stage) if s == stage]

    def _given(self, stage: int) -> list[list[int]]:
        """The programs that the user gave."""
        assert self.solve is not None
        solve, ids = self.solve[self.listed.stages[stage]], self.interpreter.vocabulary.ids
        inputs = [self.listed.inputs[row] for row in self._rows(stage)]
        if not callable(solve):
            return [program_tokens(solve, ids, self.horizon)] * len(inputs)
        where = f"solve: for {{}} of stage {self.listed.stages[stage]!r}"
        texts = (call_for(where.format(described(given)), solve, given) for given in inputs)
        return [program_tokens(text, ids, self.horizon) for text in texts]

    def _search(self, stage: int) -> list[list[int]]:
        """Few programs that solve all problems: they are searched for on a sample, and then tried on the others."""
        interpreter, ids = self.interpreter, self.interpreter.vocabulary.ids
        rows, programs = self._rows(stage), dict[int, list[int]]()
        open_rows = torch.tensor(rows)[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        sample = SAMPLE
        while len(open_rows):
            sampled = open_rows[:sample]
            search = ProgramSearch(interpreter, self.inputs[sampled], self.targets[sampled])
            if search.unsolved:
                raise self._unsolved(
                    stage, sampled[search.unsolved].sort().values.tolist(), len(sampled), search.exhausted
                )
            for words in search.chosen():
                tokens = [ids[word] for word in words]
                solved = self._solves(tokens, open_rows)
                programs.update(dict.fromkeys(open_rows[solved].tolist(), tokens))
                open_rows = open_rows[~solved]
            sample *= 2
        return [programs[row] for row in rows]

    def _solves(self, program: list[int], rows: Tensor) -> Tensor:
        """Whether a program solves problems, int64 [n]: bool [n]."""
        state = self.interpreter.begin(self.inputs[rows], self.targets[rows])
        success = torch.zeros(len(rows), dtype=torch.bool)
        for token in program:
            state, success, _ = self.interpreter.step(state, torch.full((len(rows),), token))
        return success

    def _unsolved(self, stage: int, rows: list[int], tried: int, exhausted: bool) -> UserError:
        inputs, targets, name = self.listed.inputs, self.listed.target, self.listed.stages[stage]
        some = ", ".join(f"{described(inputs[row])} (target {targets[row]!r})" for row in rows[:SHOWN])
        why = f"no program of up to {self.interpreter.most_results} calls gives it; see `calls`"
        if not exhausted:
            why = "the search for a program gave up; give the programs with `solve`, or allow fewer calls"
        return UserError(
            f"target: {len(rows)} of {tried} problems of stage {name!r} cannot be reached, such as {some}: {why}"
        )


def program_tokens(text: object, vocabulary: dict[str, int], horizon: int) -> list[int]:
    """Return the tokens of a program that a user wrote: "celsius f ANS R1", or a list of these words.

    Raises:
        UserError: a word is not a token, or there are too many.
    """
    if not (isinstance(text, str) or (isinstance(text, (list, tuple)) and all(isinstance(w, str) for w in text))):
        raise UserError(f"solve: {text!r} is not allowed; expected a program, such as 'celsius f ANS R1'")
    words = text.split() if isinstance(text, str) else list(text)
    tokens = [vocabulary[choose("solve: token", word, vocabulary)] for word in words]
    if not 0 < len(tokens) <= horizon:
        raise UserError(f"solve: {' '.join(words)!r} is not allowed; expected 1 to {horizon} tokens; see `calls`")
    return tokens
