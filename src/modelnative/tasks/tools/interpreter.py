"""The episodes of a task made of tools: tokens are collected to calls, calls are made, results are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import State, replace
from modelnative.tasks.tools.call_table import ERROR, NEVER, NONE, CallTable, ValueTable
from modelnative.tasks.tools.grammar import FULL, IDLE, OPEN, make_rules
from modelnative.tasks.tools.tool import Tool, Value
from modelnative.tasks.tools.vocabulary import ToolVocabulary


@dataclass
class ToolState(State):
    """A batch of n episodes. Values are given by their ids in the `ValueTable`.

    Attributes:
        mode: int64 [n], the kind of token that is expected (see `grammar`).
        results: int64 [n], number of results.
        shown: int64 [n], the result of the last call; ERROR if it failed, NONE before the first call.
        answer: int64 [n], the answer; NONE without one.
        target: int64 [n], the right answer.
        cells: int64 [n, W], the inputs, the results, the arguments of the current call, and a last one that is NONE.
    """

    mode: Tensor
    results: Tensor
    shown: Tensor
    answer: Tensor
    target: Tensor
    cells: Tensor


class Interpreter:
    """Applies tokens to episodes and makes the calls of the tools.

    Args:
        tools: the tools.
        vocabulary: the tokens.
        inputs: the names of the inputs.
        calls: the largest number of results.

    Attributes:
        slots: the names of inputs and results.
        widest: the largest number of parameters of a tool.
        constants: the id of each constant's value, by type and value.
        values: the table of values.
        calls: the table of calls.
    """

    def __init__(
        self, tools: Sequence[Tool[..., Any]], vocabulary: ToolVocabulary, inputs: Sequence[str], calls: int
    ) -> None:
        self.vocabulary, self.inputs, self.most_results = vocabulary, len(inputs), calls
        self.slots = (*inputs, *(f"R{k + 1}" for k in range(calls)))
        self.widest = max(len(tool.parameters) for tool in tools)
        blank = [vocabulary.end] * vocabulary.width
        error = [vocabulary.ids["ERROR"], *blank[1:]]
        kinds = [kind for tool in tools for kind in tool.parameters.values()]
        self.values = ValueTable(vocabulary.shown, vocabulary.same, kinds, blank, error)
        self.calls = CallTable(tools, self.values)
        self.constants = {constant: self.intern("a constant", constant[1]) for constant in vocabulary.constants}
        rules, self._places = make_rules(tools, vocabulary.ids, self.slots, self.values.kinds, self.constants)
        self._rules = PerDevice(rules.to)
        # The token, constant, cell and kind of each rule that may be valid, by mode.
        self._tokens: list[list[tuple[int, int, int, int]]] = [[] for _ in range(OPEN + len(self._places))]
        never, width = len(self.values.kinds) + NEVER, len(vocabulary.ids)
        columns = zip(rules.constant.tolist(), rules.cell.tolist(), rules.kind.tolist(), strict=True)
        for row, (constant, cell, kind) in enumerate(columns):
            if kind != never:
                self._tokens[row // width].append((row % width, constant, cell, kind))
        self._arity = PerDevice(torch.tensor([len(tool.parameters) for tool in tools]).to)

    def intern(self, what: str, value: Value) -> int:
        """Return the id of a value. Raises `UserError`, beginning with `what`, if it cannot be shown."""
        found = self.values.intern(value)
        if found == ERROR:
            allowed = f"at most {self.vocabulary.digits} digits, decimals included; set digits="
            if isinstance(value, str):
                allowed = "a string that a tool may return (as a Literal) or that is an input"
            raise UserError(f"{what}: {value!r} is not allowed; expected {allowed}")
        return found

    def begin(self, inputs: Tensor, target: Tensor) -> ToolState:
        """Return the state before the first token.

        Args:
            inputs: int64 [n, inputs], the ids of the inputs; NONE where a problem does not have one.
            target: int64 [n], the id of the right answer.
        """
        zero = torch.zeros_like(target)
        cells = zero.new_full((len(zero), len(self.slots) + self.widest + 1), NONE)
        cells[:, : self.inputs] = inputs
        return ToolState(zero.bool(), zero + IDLE, zero, zero + NONE, zero + NONE, target, cells)

    def step(self, state: ToolState, action: Tensor) -> tuple[ToolState, Tensor, Tensor]:
        """Apply one token, int64 [n]; return the state, `success` and `invalid` as in `Step`."""
        rules, columns = self._rules(action.device), self.values.columns(action.device)
        row = torch.add(action, state.mode, alpha=len(self.vocabulary.ids))
        constant = rules.constant.index_select(0, row)
        named = state.cells.gather(1, rules.cell.index_select(0, row)[:, None])[:, 0]
        value = torch.where(constant == NONE, named, constant)
        kind = torch.add(rules.kind.index_select(0, row), value, alpha=self.values.width)
        fits = columns.fits.view(-1).index_select(0, kind)
        spare = state.cells.shape[1] - 1
        into = torch.where(fits, rules.into.index_select(0, row), spare)
        cells = state.cells.scatter(1, into[:, None], torch.where(into == spare, NONE, value)[:, None])
        ends = torch.where(fits, rules.ends.index_select(0, row), 0)
        answer = torch.where(ends == 2, value, state.answer)
        done, mode = state.done | (ends > 0), torch.where(fits, rules.mode.index_select(0, row), state.mode)
        after = replace(state, done=done, mode=mode, answer=answer, cells=cells)
        calls = torch.where(fits, rules.call.index_select(0, row), 0)
        complete = calls.nonzero()[:, 0]
        if len(complete):
            after = self._with_results(after, complete, calls.index_select(0, complete) - 1)
        alike = columns.alike
        success = (ends == 2) & (alike.index_select(0, answer) == alike.index_select(0, state.target))
        return after, success, ~fits & ~state.done

    def effective_tokens(self, state: ToolState) -> list[int]:
        """Return the tokens that are valid in at least one of the episodes, ascending."""
        fits, found = self.values.columns(state.mode.device).fits, set[int]()
        modes = state.mode.unique().tolist()
        for mode in modes:
            cells = state.cells if len(modes) == 1 else state.cells[state.mode == mode]
            for token, constant, cell, kind in self._tokens[mode]:
                values = cells.new_tensor([constant]) if constant != NONE else cells[:, cell]
                if token not in found and bool(fits[:, kind].index_select(0, values).any()):
                    found.add(token)
        return sorted(found)

    def _with_results(self, state: ToolState, rows: Tensor, tool: Tensor) -> ToolState:
        """Make the complete calls of tools, int64 [m], in rows, int64 [m]. The cells of `state` are overwritten."""
        given = state.cells.index_select(0, rows)[:, len(self.slots) : -1]
        arity = self._arity(rows.device).index_select(0, tool)
        places = torch.arange(given.shape[1], device=rows.device)
        given = torch.where(places < arity[:, None], given, NONE)  # the cells may hold arguments of an earlier call
        result = self.calls(tool.cpu(), given.cpu()).to(rows.device)  # the table of calls is on the CPU
        good = result != ERROR
        results = state.results.index_add(0, rows, good.long())
        state.cells[rows, state.results[rows] + self.inputs] = torch.where(good, result, NONE)
        mode = torch.where(results[rows] == self.most_results, FULL, IDLE)
        mode, shown = state.mode.index_copy(0, rows, mode), state.shown.index_copy(0, rows, result)
        return replace(state, mode=mode, results=results, shown=shown)

    def feedback(self, state: ToolState) -> Tensor:
        """See `Task.feedback`: the last result, blank while a call is written."""
        shown = torch.where(state.mode < OPEN, state.shown, NONE)
        return self.values.columns(state.mode.device).tokens.index_select(0, shown)

    def registers(self, state: ToolState, i: int) -> dict[str, str]:
        """See `Task.registers`."""
        cells = state.cells[i].tolist()
        shown = {name: self._text(cells[k]) for k, name in enumerate(self.slots)}
        mode = int(state.mode[i])
        name, place = self._places[mode - OPEN] if mode >= OPEN else ("", 0)
        given = cells[len(self.slots) :][:place]
        shown["call"] = " ".join([name, *map(self._text, given)])
        shown["display"] = self._text(int(state.shown[i])) if mode < OPEN else ""
        return shown

    def _text(self, value: int) -> str:
        return {NONE: "", ERROR: "ERROR"}.get(value, str(self.values.objects[value]))
