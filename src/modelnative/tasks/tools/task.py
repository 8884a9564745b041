"""A task made of plain Python functions: choose a tool, choose its arguments, answer with a result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import Problems, Split, State, Step, Task, TaskSpec, in_split, require
from modelnative.tasks.tools.call_table import ERROR, NONE, Calls, Values
from modelnative.tasks.tools.grammar import FULL, IDLE, OPEN, make_rules
from modelnative.tasks.tools.oracle import Machine, Search, written
from modelnative.tasks.tools.problems import Alphabet, Ask, Listed, asked, described, per_stage
from modelnative.tasks.tools.tool import Tool, Value

LONGEST = 64  # tokens of an episode
SHOWN = 3  # problems that a message names

T = TypeVar("T", bound=Tensor | Batch)


@dataclass
class ToolProblems(Problems):
    """Adds `row`: int64 [n], the problem's place in the list of all."""

    row: Tensor


@dataclass
class Desk(State):
    """What lies before the agent.

    Attributes:
        mode: int64 [n], which kind of token is due.
        results: int64 [n], how many there are.
        shown: int64 [n], the id of what the last call gave, ERROR if it failed, NONE before the first.
        answer: int64 [n], the id of the answer; NONE without one.
        target: int64 [n], the id of the right one.
        cells: int64 [n, W], ids: of the inputs, the results, the arguments so far, and one that is always NONE.
    """

    mode: Tensor
    results: Tensor
    shown: Tensor
    answer: Tensor
    target: Tensor
    cells: Tensor


class ToolTask(Task[ToolProblems, Desk]):
    """Reach the target by calling tools that are plain Python functions.

    The agent writes a tool's name, then for each parameter where its argument comes from: an input by its name, an
    earlier result (R1, R2, ...), or a constant of the parameter's Literal (bool is one). After the last argument the
    tool is called; its result gets the next free name, and is shown while no other call is under way: INT or FLOAT, a
    sign and digits; or the token of a string or bool; or ERROR if the tool raised, and then there is no new result. ANS
    and the name of an input or result ends the episode; it succeeds if that value is the target. A constant is no
    answer, or guessing could be one. EOS ends the episode without an answer. A token where it is not due, a name
    without a value, and a value that is not of the parameter's type are invalid.

    What a fixed program and a blind agent reach is up to the problems: let the tools that are needed depend on them.

    Args:
        tools: functions, decorated with `tool` or not, of which each parameter and result is annotated.
        problems: the values of each input, of which every combination is a problem: `{"f": range(0, 120)}`; or a list
            of problems: `[{"f": 50}, ...]`; or either for each stage, easiest first: `{"one": ..., "two": ...}`. Values
            are int, float, bool or str.
        target: from a problem, a dictionary of inputs, to the right answer; or such a function for each stage.
        solve: a program for each problem: "celsius f ANS R1"; or a function from a problem to one; or either for each
            stage. Without it, the shortest is searched for, by calling the tools on whatever they can be called on.
        calls: the most results in an episode, and the most calls of a program that is searched for.
        digits: of a number that can be shown; a result that needs more is an error.
        decimals: places of a float that are shown, and that count in an answer.

    Raises:
        UserError: anything of it is not allowed; from `oracle`, if problems cannot be solved, naming some of them.

    Example:
        >>> def celsius(f: int) -> int:
        ...     return round((f - 32) * 5 / 9)
        >>> task = ToolTask([celsius], problems={"f": range(0, 120)}, target=lambda problem: celsius(problem["f"]))
        >>> problem = task.parse(0, "f=50")
        >>> " ".join(task.spec.vocabulary[token] for token in task.oracle(problem)[0][:4])
        'celsius f ANS R1'
    """

    def __init__(
        self,
        tools: Sequence[Tool[..., Any] | Callable[..., Any]],
        problems: Any,
        target: Ask | Mapping[str, Ask],
        solve: Any = None,
        calls: int = 3,
        digits: int = 6,
        decimals: int = 2,
    ) -> None:
        self.tools = _tools(tools)
        for name, value, least, most in (
            ("calls", calls, 1, 20),
            ("digits", digits, 1, 12),
            ("decimals", decimals, 0, 6),
        ):
            require(
                type(value) is int and least <= value <= most, name, value, f"a whole number from {least} to {most}"
            )
        self.listed = Listed.of(problems, target)
        self.solve = None if solve is None else per_stage("solve", solve, self.listed.stages)
        self.calls = calls
        self.alphabet = Alphabet(self.tools, self.listed, calls, digits, decimals)
        kinds = [kind for tool in self.tools for kind in tool.parameters.values()]
        alphabet = self.alphabet
        blank = [alphabet.end] * alphabet.width
        error = [alphabet.ids["ERROR"], *blank[1:]]
        self.values = Values(alphabet.shown, alphabet.same, kinds, blank, error)
        self.made = Calls(self.tools, self.values)
        contexts, positions = alphabet.contexts(self.listed)
        widest = max(len(tool.parameters) for tool in self.tools)
        horizon = calls * (1 + widest) + 2
        require(horizon <= LONGEST, "calls", calls, f"episodes of at most {LONGEST} tokens; these have up to {horizon}")
        self.spec = TaskSpec(
            name="tools",
            vocabulary=tuple(alphabet.ids),
            stages=self.listed.stages,
            context_length=len(positions),
            feedback_width=alphabet.width,
            horizon=horizon,
            start=alphabet.ids["START"],
            end=alphabet.end,
            positions=tuple(positions),
        )
        self._constants = {constant: self._intern("a constant", constant[1]) for constant in alphabet.constants}
        self.slots = (*self.listed.names, *(f"R{k + 1}" for k in range(calls)))
        self._rules, self._places = make_rules(self.tools, alphabet.ids, self.slots, self.values.kinds, self._constants)
        self._arity = torch.tensor([len(tool.parameters) for tool in self.tools])
        self._problems = ToolProblems(
            stage=torch.tensor(self.listed.stage),
            context=torch.tensor(contexts, dtype=torch.int16),
            key=torch.tensor(self.listed.keys()),
            row=torch.arange(len(contexts)),
        )
        self._splits: dict[Split, list[Tensor]] = {}
        for index, name in enumerate(self.spec.stages):
            require(self.count(index, "train") > 0, "problems", name, "more problems in this stage: all are held out")
        self._begun = self._beginnings(widest)
        self._programs: dict[int, Tensor | UserError] = {}
        self._lock = threading.Lock()
        self._tables: dict[tuple[str, torch.device], Tensor | Batch] = {}

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ToolProblems:
        table = self._on(stage.device, f"split {split}", lambda: torch.cat(self._parts(split)))
        sizes = self._on(stage.device, f"sizes {split}", lambda: torch.tensor([*map(len, self._parts(split))]))
        if bool((sizes.index_select(0, stage) == 0).any()):
            name = self.spec.stages[int(stage[(sizes.index_select(0, stage) == 0).nonzero()[0, 0]])]
            raise UserError(f"split: {split!r} has no problem of stage {name!r}; it needs more problems")
        starts = sizes.cumsum(0) - sizes
        unit = torch.rand(stage.shape, generator=generator, device=stage.device, dtype=torch.float64)
        place = (unit * sizes.index_select(0, stage)).long() + starts.index_select(0, stage)
        return self._at(table.index_select(0, place))

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ToolProblems]:
        for rows in self._parts(split)[stage].split(chunk):
            if len(rows):  # an empty tensor is split into one part
                yield self._at(rows)

    def count(self, stage: int, split: Split = "all") -> int:
        return len(self._parts(split)[stage])

    def parse(self, stage: int, text: str) -> ToolProblems:
        listed = self.listed
        rows = [row for row, s in enumerate(listed.stage) if s == stage]
        words = text.replace(",", " ").split()
        for row in rows:
            given = listed.inputs[row]
            for said in (described(given), " ".join(map(str, given.values()))):
                if words == said.replace(",", " ").split():
                    return self._at(torch.tensor([row]))
        example = described(listed.inputs[rows[0]])
        raise UserError(
            f"problem: {text!r} is not allowed; expected one of the {len(rows)} problems of stage "
            f"{listed.stages[stage]!r}, such as {example!r}"
        )

    def render(self, problems: ToolProblems, i: int) -> str:
        row = int(problems.row[i])
        return f"{self.listed.stages[self.listed.stage[row]]}: {described(self.listed.inputs[row])}"

    def records(self, problems: ToolProblems, state: Desk) -> list[dict[str, Any]]:
        columns = (problems.row.tolist(), state.answer.tolist())
        return [
            {
                "problem": described(self.listed.inputs[row]),
                "inputs": self.listed.inputs[row],
                "answer": self._rounded(self.values.objects[answer]),
                "target": self._rounded(self.listed.target[row]),
            }
            for row, answer in zip(*columns, strict=True)
        ]

    def oracle(self, problems: ToolProblems) -> Tensor:
        device = problems.stage.device
        programs = torch.full((len(problems), self.spec.horizon), self.spec.end, device=device)
        for stage in problems.stage.unique().tolist():
            table = self._on(device, f"programs {stage}", partial(self._solved, stage))
            mine = (problems.stage == stage).nonzero()[:, 0]
            place = problems.row[mine] - self.listed.stage.index(stage)
            programs[mine] = table.index_select(0, place).long()
        return programs

    # Episodes

    def begin(self, problems: ToolProblems) -> Desk:
        device = problems.stage.device
        cells = self._on(device, "cells", lambda: self._begun[0])
        target = self._on(device, "target", lambda: self._begun[1])
        zero = torch.zeros_like(problems.stage)
        return Desk(
            done=torch.zeros_like(zero, dtype=torch.bool),
            mode=zero + IDLE,
            results=zero,
            shown=zero + NONE,
            answer=zero + NONE,
            target=target.index_select(0, problems.row),
            cells=cells.index_select(0, problems.row),
        )

    def step(self, state: Desk, action: Tensor) -> Step[Desk]:
        device = action.device
        rules = self._on(device, "rules", lambda: self._rules)
        columns = self.values.columns(device)
        row = torch.add(action, state.mode, alpha=len(self.spec.vocabulary))
        constant = rules.constant.index_select(0, row)
        named = state.cells.gather(1, rules.cell.index_select(0, row)[:, None])[:, 0]
        value = torch.where(constant == NONE, named, constant)
        kind = torch.add(rules.kind.index_select(0, row), value, alpha=self.values.width)
        fits = columns.fits.index_select(0, kind)
        spare = state.cells.shape[1] - 1
        into = torch.where(fits, rules.into.index_select(0, row), spare)
        cells = state.cells.scatter(1, into[:, None], torch.where(into == spare, NONE, value)[:, None])
        ends = torch.where(fits, rules.ends.index_select(0, row), 0)
        answer = torch.where(ends == 2, value, state.answer)
        after = Desk(
            done=state.done | (ends > 0),
            mode=torch.where(fits, rules.mode.index_select(0, row), state.mode),
            results=state.results,
            shown=state.shown,
            answer=answer,
            target=state.target,
            cells=cells,
        )
        calls = torch.where(fits, rules.call.index_select(0, row), 0)
        complete = calls.nonzero()[:, 0]
        if len(complete):
            after = self._called(after, complete, calls.index_select(0, complete) - 1)
        alike = columns.alike
        success = (ends == 2) & (alike.index_select(0, answer) == alike.index_select(0, state.target))
        return Step(after, self.feedback(after), success.float(), after.done, success, ~fits & ~state.done)

    def feedback(self, state: Desk) -> Tensor:
        shown = torch.where(state.mode < OPEN, state.shown, NONE)
        return self.values.columns(state.mode.device).tokens.index_select(0, shown)

    def registers(self, state: Desk, i: int) -> dict[str, str]:
        cells = state.cells[i].tolist()
        said = {name: self._said(cells[k]) for k, name in enumerate(self.slots)}
        mode = int(state.mode[i])
        name, place = self._places[mode - OPEN] if mode >= OPEN else ("", 0)
        given = cells[len(self.slots) :][:place]
        said["call"] = " ".join([name, *map(self._said, given)])
        said["display"] = self._said(int(state.shown[i])) if mode < OPEN else ""
        return said

    def _called(self, state: Desk, rows: Tensor, tool: Tensor) -> Desk:
        """The state after complete calls at some rows, of so many tools; `cells` of the argument is its own."""
        given = state.cells.index_select(0, rows)[:, len(self.slots) : -1]
        arity = self._on(rows.device, "arity", lambda: self._arity).index_select(0, tool)
        places = torch.arange(given.shape[1], device=rows.device)
        given = torch.where(places < arity[:, None], given, NONE)  # those of an earlier call may stand behind
        result = self.made(tool.cpu(), given.cpu()).to(rows.device)  # values live on the CPU
        good = result != ERROR
        results = state.results.index_add(0, rows, good.long())
        state.cells[rows, state.results[rows] + len(self.listed.names)] = torch.where(good, result, NONE)
        mode = torch.where(results[rows] == self.calls, FULL, IDLE)
        return Desk(
            done=state.done,
            mode=state.mode.index_copy(0, rows, mode),
            results=results,
            shown=state.shown.index_copy(0, rows, result),
            answer=state.answer,
            target=state.target,
            cells=state.cells,
        )

    # Tables

    def _at(self, rows: Tensor) -> ToolProblems:
        problems = self._on(rows.device, "problems", lambda: self._problems)[rows]
        problems.context = problems.context.long()
        return problems

    def _parts(self, split: Split) -> list[Tensor]:
        """The rows of each stage that are in the split: int64."""
        if split not in self._splits:
            inside = in_split(self._problems.key, split)
            stages = range(len(self.spec.stages))
            self._splits[split] = [(inside & (self._problems.stage == s)).nonzero()[:, 0] for s in stages]
        return self._splits[split]

    def _on(self, device: torch.device, name: str, make: Callable[[], T]) -> T:
        """A table on a device, made when it is first needed there."""
        found = self._tables.get((name, device))
        if found is None:
            found = self._tables[name, device] = make().to(device)
        return found  # type: ignore[return-value]  # under a name there is always the same type

    def _beginnings(self, widest: int) -> tuple[Tensor, Tensor]:
        """`cells` and `target` of every problem before the first action."""
        names = self.listed.names
        cells = torch.full((len(self.listed.inputs), len(self.slots) + widest + 1), NONE)
        target = []
        for row, (given, answer) in enumerate(zip(self.listed.inputs, self.listed.target, strict=True)):
            for name, value in given.items():
                cells[row, names.index(name)] = self._intern(f"input {name}", value)
            target.append(self._intern(f"target: for {described(given)}", answer))
        return cells, torch.tensor(target)

    def _intern(self, what: str, value: Value) -> int:
        found = self.values.intern(value)
        if found == ERROR:
            allowed = f"at most {self.alphabet.digits} digits, decimals included; set digits="
            if isinstance(value, str):
                allowed = "a string that a tool may return (as a Literal) or that is an input"
            raise UserError(f"{what}: {value!r} is not allowed; expected {allowed}")
        return found

    def _solved(self, stage: int) -> Tensor:
        """The program of every problem of a stage: int16 [problems, horizon].

        Raises:
            UserError: some have none.
        """
        with self._lock:  # several threads may ask
            if stage not in self._programs:
                try:
                    programs = self._search(stage) if self.solve is None else self._told(stage)
                    end, horizon = self.spec.end, self.spec.horizon
                    padded = [[*program, *[end] * (horizon - len(program))] for program in programs]
                    self._programs[stage] = torch.tensor(padded, dtype=torch.int16)
                except UserError as error:
                    self._programs[stage] = error
            found = self._programs[stage]
        if isinstance(found, UserError):
            raise found
        return found

    def _told(self, stage: int) -> list[list[int]]:
        """As the user wrote them."""
        assert self.solve is not None
        solve = self.solve[self.spec.stages[stage]]
        inputs = [self.listed.inputs[row] for row in self._parts("all")[stage].tolist()]
        if not callable(solve):
            return [written(solve, self.alphabet.ids, self.spec.horizon)] * len(inputs)
        where = f"solve: for {{}} of stage {self.spec.stages[stage]!r}"
        texts = (asked(where.format(described(given)), solve, given) for given in inputs)
        return [written(text, self.alphabet.ids, self.spec.horizon) for text in texts]

    def _search(self, stage: int) -> list[list[int]]:
        """The shortest ones."""
        rows = self._parts("all")[stage]
        cells, target = self._begun
        alike = self.values.columns(rows.device).alike
        machine = Machine(self.tools, self.made, self._constants, len(self.listed.names), self.calls)
        search = Search(machine, cells[rows, : len(self.listed.names)], alike[target[rows]])
        missing = [row for row, found in zip(rows.tolist(), search.found, strict=True) if found is None]
        if missing:
            inputs, targets = self.listed.inputs, self.listed.target
            some = ", ".join(f"{described(inputs[row])} (target {targets[row]!r})" for row in missing[:SHOWN])
            why = f"no program of up to {self.calls} calls gives it; see `calls`"
            if not search.exhausted:
                why = "the search for a program gave up; say how to reach it with `solve`, or allow fewer calls"
            raise UserError(
                f"target: {len(missing)} of {len(rows)} problems of stage {self.spec.stages[stage]!r} cannot be "
                f"reached, such as {some}: {why}"
            )
        ids = self.alphabet.ids
        return [[ids[word] for word in machine.words(*found, self.slots)] for found in search.found if found]

    def _rounded(self, value: Value | None) -> Value | None:
        """A float as it counts in an answer."""
        return round(value, self.alphabet.decimals) if isinstance(value, float) else value

    def _said(self, value: int) -> str:
        return {NONE: "", ERROR: "ERROR"}.get(value, str(self.values.objects[value]))


def _tools(given: Sequence[Tool[..., Any] | Callable[..., Any]]) -> tuple[Tool[..., Any], ...]:
    require(isinstance(given, (list, tuple)) and len(given) > 0, "tools", given, "a list of at least one function")
    tools = tuple(one if isinstance(one, Tool) else Tool(one) for one in given)
    names = [tool.name for tool in tools]
    for name in names:
        require(names.count(name) == 1, "tools", names, f"different names; {name!r} is there twice")
    return tools
