"""The oracle's programs of a task made of tools: given by the user, or found by search."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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

    Attributes:
        notes: what the search found that the author of the task should know, a line each.
    """

    def __init__(
        self, interpreter: Interpreter, listed: ProblemList, inputs: Tensor, targets: Tensor, solve: Any, horizon: int
    ) -> None:
        self.interpreter, self.listed, self.inputs, self.targets = interpreter, listed, inputs, targets
        self.solve = None if solve is None else per_stage("solve", solve, listed.stages)
        self.horizon = horizon
        self._programs = torch.full((len(inputs), horizon), interpreter.vocabulary.end, dtype=torch.int32)
        self.notes: list[str] = []
        self._made: set[int] = set()
        self._lock = threading.Lock()

    def __call__(self, stage: Tensor, row: Tensor) -> Tensor:
        """Return the programs of problems from their stages and rows, int64 [n] each: int64 [n, horizon].

        Raises:
            UserError: problems of a stage have no program, or one that is not allowed.
        """
        with self._lock:  # several threads may call
            for index in set(stage.unique().tolist()) - self._made:
                rows = torch.tensor([row for row, s in enumerate(self.listed.stage) if s == index])
                for program, solved in self._search(index, rows) if self.solve is None else self._given(index, rows):
                    self._programs[solved, : len(program)] = torch.tensor(program, dtype=torch.int32)
                self._made.add(index)
        return self._programs[row.cpu()].long().to(row.device)

    def _given(self, stage: int, rows: Tensor) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the programs that the user gave, each with the rows of its problems."""
        assert self.solve is not None
        name = self.listed.stages[stage]
        solve = self.solve[name]
        if not callable(solve):
            yield self._tokens(solve), rows
            return
        for row in rows:
            given = self.listed.inputs[int(row)]
            where = f"solve: for {described(given)} of stage {name!r}"
            yield self._tokens(call_for(where, solve, given)), row

    def _tokens(self, text: object) -> list[int]:
        """Return the tokens of a program that a user wrote: "celsius f ANS R1", or a list of these words."""
        ids = self.interpreter.vocabulary.ids
        if not (isinstance(text, str) or (isinstance(text, (list, tuple)) and all(isinstance(w, str) for w in text))):
            raise UserError(f"solve: {text!r} is not allowed; expected a program, such as 'celsius f ANS R1'")
        words = text.split() if isinstance(text, str) else list(text)
        tokens = [ids[choose("solve: token", word, ids)] for word in words]
        if not 0 < len(tokens) <= self.horizon:
            allowed = f"1 to {self.horizon} tokens; see `calls`"
            raise UserError(f"solve: {' '.join(words)!r} is not allowed; expected {allowed}")
        return tokens

    def _search(self, stage: int, rows: Tensor) -> Iterator[tuple[list[int], Tensor]]:
        """Yield few programs that solve all problems: they are searched for on a sample, and tried on the others."""
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        total, sample = len(rows), SAMPLE
        while len(rows):
            sampled = rows[:sample]
            search = ProgramSearch(self.interpreter, self.inputs[sampled], self.targets[sampled])
            if search.unsolved:
                missing = sampled[search.unsolved].sort().values.tolist()
                inputs, targets = self.listed.inputs, self.listed.target
                some = ", ".join(f"{described(inputs[row])} (target {targets[row]!r})" for row in missing[:SHOWN])
                why = f"no program of up to {self.interpreter.most_results} calls gives it; see `calls`"
                if not search.exhausted:
                    why = "the search for a program gave up; give the programs with `solve`, or allow fewer calls"
                tried = "" if len(sampled) == total else " that were tried"
                raise UserError(
                    f"target: {len(missing)} of {len(sampled)} problems{tried} of stage {self.listed.stages[stage]!r} "
                    f"cannot be reached, such as {some}: {'; '.join([why, *self.interpreter.calls.notes()])}"
                )
            for words in search.chosen():
                tokens = self._tokens(words)
                solved = self._solves(tokens, rows)
                if total > 1 and bool(solved.all()) and len(rows) == total:
                    self.notes.append(
                        f"stage {self.listed.stages[stage]!r}: one program solves all {total:,} problems, "
                        f"{' '.join(words)!r}, so that the agent need not read the problem; add problems that need "
                        "other tools, or another order of them"
                    )
                yield tokens, rows[solved]
                rows = rows[~solved]
            sample *= 2

    def _solves(self, program: list[int], rows: Tensor) -> Tensor:
        """Whether a program solves problems, int64 [n]: bool [n]."""
        state = self.interpreter.begin(self.inputs[rows], self.targets[rows])
        success = torch.zeros(len(rows), dtype=torch.bool)
        for token in program:
            state, success, _ = self.interpreter.step(state, torch.full((len(rows),), token))
        return success
