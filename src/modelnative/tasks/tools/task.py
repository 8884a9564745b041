"""A task made of plain Python functions: choose a tool, choose its arguments, answer with a result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.sampling import NumberedTask, StageTables, content_key
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import SPLITS, Problems, Split, Step, TaskSpec, in_split, require
from modelnative.tasks.tools.call_table import NONE
from modelnative.tasks.tools.interpreter import Interpreter, ToolState
from modelnative.tasks.tools.problems import FromInputs, ProblemList, described
from modelnative.tasks.tools.programs import OraclePrograms
from modelnative.tasks.tools.tool import Tool, Value
from modelnative.tasks.tools.vocabulary import ToolVocabulary
from modelnative.tasks.tools.words import ToolWords, questions

LONGEST = 64  # tokens of an episode


@dataclass
class ToolProblems(Problems):
    """Adds `row`, int64 [n], the index of the problem in the list of all problems."""

    row: Tensor


class ToolTask(ToolWords, NumberedTask[ToolProblems, ToolState]):
    """Reach the target by calling tools that are plain Python functions.

    The agent writes the name of a tool and then one token for each argument: the name of an input, the name of an
    earlier result (R1, R2, …), or a constant of the parameter's Literal (bool is one). After the last argument the tool
    is called. Its result gets the next free name and is displayed until the next call begins: INT or FLOAT, a sign and
    digits; or the token of a string or bool; or ERROR if the tool raised an exception, in which case there is no new
    result. ANS and the name of an input or result ends the episode; it succeeds if the value equals the target.
    Constants are no answers, because they could be guessed. EOS ends the episode without an answer. Tokens that are not
    expected, names without a value and values of another type than the parameter are invalid.

    How well a constant program or a blind policy does depends on the problems: choose them so that the necessary tools
    vary.

    Args:
        tools: functions, decorated with `tool` or not, with annotations for each parameter and the result.
        problems: the values of each input, all combinations of which are problems: `{"f": range(0, 120)}`; or a list
            of problems: `[{"f": 50}, ...]`; or one of both for each stage, easiest first: `{"one": ..., "two": ...}`.
            Values are int, float, bool or str.
        target: a function from a problem, a dictionary of inputs, to the right answer; or one for each stage.
        solve: the oracle's program for each problem: "celsius f ANS R1"; or a function from a problem to its program;
            or one of both for each stage. By default few programs that together solve all problems are searched for by
            calling the tools: give `solve` if you know the procedure.
        calls: the largest number of results in an episode, and of calls in a program that is searched for.
        digits: the largest number of digits of a number that is displayed; results with more are errors.
        decimals: places of a float that are displayed and compared with the target.
        ask: what a language model is asked, a text with the inputs in braces: "Convert {f} degrees Fahrenheit."; or one
            for each stage. By default, the name of the stage and the inputs.

    Raises:
        UserError: an argument is not allowed; or, from `oracle`, problems cannot be solved.

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
        target: FromInputs | Mapping[str, FromInputs],
        solve: Any = None,
        calls: int = 3,
        digits: int = 6,
        decimals: int = 2,
        ask: Any = None,
    ) -> None:
        self.tools = _tools(tools)
        limits = (("calls", calls, 1, 20), ("digits", digits, 1, 12), ("decimals", decimals, 0, 6))
        for name, value, least, most in limits:
            allowed = f"a whole number from {least} to {most}"
            require(type(value) is int and least <= value <= most, name, value, allowed)
        self.listed = ProblemList.of(problems, target)
        self.vocabulary = ToolVocabulary(self.tools, self.listed, calls, digits, decimals)
        self.asked = questions(ask, self.listed)
        self.interpreter = Interpreter(self.tools, self.vocabulary, self.listed.names, calls)
        contexts, positions = self.vocabulary.contexts(self.listed)
        horizon = calls * (1 + self.interpreter.widest) + 2
        require(horizon <= LONGEST, "calls", calls, f"episodes of at most {LONGEST} tokens; these have up to {horizon}")
        self.spec = TaskSpec(
            name="tools",
            vocabulary=tuple(self.vocabulary.ids),
            stages=self.listed.stages,
            context_length=len(positions),
            feedback_width=self.vocabulary.width,
            horizon=horizon,
            start=self.vocabulary.ids["START"],
            end=self.vocabulary.end,
            positions=tuple(positions),
        )
        listed = ToolProblems(
            stage=torch.tensor(self.listed.stage),
            context=torch.tensor(contexts, dtype=torch.int32),
            key=torch.tensor(self.listed.keys()),
            row=torch.arange(len(contexts)),
        )
        self._problems = PerDevice(listed.to)
        self._splits = {split: in_split(listed.key, split) for split in SPLITS}
        self._rows = StageTables(self.spec.stages, self.numbers)
        for index, name in enumerate(self.spec.stages):
            require(self.count(index, "train") > 0, "problems", name, "more problems in this stage: all are held out")
        inputs, targets = self._interned()
        self._inputs, self._targets = PerDevice(inputs.to), PerDevice(targets.to)
        self.programs = OraclePrograms(self.interpreter, self.listed, inputs, targets, solve, horizon)

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ToolProblems:
        return self._at(self._rows.draw(stage, generator, split))

    def numbers(self, stage: int, split: Split) -> Tensor:
        """See `NumberedTask.numbers`; the number of a problem is its row in the list of all problems."""
        inside = self._problems(torch.device("cpu")).stage == stage
        return (inside & self._splits[split]).nonzero()[:, 0]

    def problems(self, stage: Tensor, numbers: Tensor) -> ToolProblems:
        return self._at(numbers)

    def parse(self, stage: int, text: str) -> ToolProblems:
        listed = self.listed
        rows = [row for row, s in enumerate(listed.stage) if s == stage]
        example = described(listed.inputs[rows[0]])
        allowed = f"one of the {len(rows)} problems of stage {listed.stages[stage]!r}, such as {example!r}"
        for form in (str, _words):  # as it is written, so that `a,b` and `a b` differ; else whatever the spacing
            for written in (described, lambda given: " ".join(map(str, given.values()))):
                found = [row for row in rows if form(written(listed.inputs[row])) == form(text)]
                require(len(found) < 2, "problem", text, f"{allowed}; this may be {len(found)} of them")
                if found:
                    return self._at(torch.tensor(found))
        raise UserError(f"problem: {text!r} is not allowed; expected {allowed}")

    def render(self, problems: ToolProblems, i: int) -> str:
        row = int(problems.row[i])
        return f"{self.listed.stages[self.listed.stage[row]]}: {described(self.listed.inputs[row])}"

    def records(self, problems: ToolProblems, state: ToolState) -> list[dict[str, Any]]:
        objects = self.interpreter.values.objects
        return [
            {
                "problem": described(self.listed.inputs[row]),
                "inputs": self.listed.inputs[row],
                "answer": self._rounded(objects[answer]),
                "target": self._rounded(self.listed.target[row]),
            }
            for row, answer in zip(problems.row.tolist(), state.answer.tolist(), strict=True)
        ]

    def oracle(self, problems: ToolProblems) -> Tensor:
        return self.programs(problems.stage, problems.row)

    def notes(self) -> list[str]:
        return [*self.programs.notes, *self.interpreter.calls.notes()]

    # Episodes

    def begin(self, problems: ToolProblems) -> ToolState:
        device, row = problems.row.device, problems.row
        return self.interpreter.begin(
            self._inputs(device).index_select(0, row), self._targets(device).index_select(0, row)
        )

    def step(self, state: ToolState, action: Tensor) -> Step[ToolState]:
        after, success, invalid = self.interpreter.step(state, action)
        return Step(after, self.feedback(after), success.float(), after.done, success, invalid)

    def effective_tokens(self, state: ToolState) -> list[int]:
        return self.interpreter.effective_tokens(state)

    def feedback(self, state: ToolState) -> Tensor:
        return self.interpreter.feedback(state)

    def registers(self, state: ToolState, i: int) -> dict[str, str]:
        return self.interpreter.registers(state, i)

    # The list of problems

    def row_of(self, context: Tensor) -> int:
        """The first problem in the list with a context, int64 [L]."""
        keys, order = self._contexts
        key = content_key(context[None].cpu())
        return int(order[torch.searchsorted(keys, key)[0]])

    @functools.cached_property
    def _contexts(self) -> tuple[Tensor, Tensor]:
        """The keys of all contexts, ascending, and the row of each."""
        keys, order = content_key(self._problems(torch.device("cpu")).context.long()).sort(stable=True)
        return keys, order

    def _at(self, rows: Tensor) -> ToolProblems:
        problems = self._problems(rows.device)[rows]
        problems.context = problems.context.long()
        return problems

    def _interned(self) -> tuple[Tensor, Tensor]:
        """The ids of the inputs, int64 [problems, inputs], and of the targets, int64 [problems]."""
        names, intern = self.listed.names, self.interpreter.intern
        inputs = torch.full((len(self.listed.inputs), len(names)), NONE)
        targets = []
        for row, (given, answer) in enumerate(zip(self.listed.inputs, self.listed.target, strict=True)):
            for name, value in given.items():
                inputs[row, names.index(name)] = intern(f"input {name}", value)
            targets.append(intern(f"target: for {described(given)}", answer))
        return inputs, torch.tensor(targets)

    def _rounded(self, value: Value | None) -> Value | None:
        """A float as it is compared with the target."""
        return round(value, self.vocabulary.decimals) if isinstance(value, float) else value


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _tools(given: Sequence[Tool[..., Any] | Callable[..., Any]]) -> tuple[Tool[..., Any], ...]:
    require(isinstance(given, (list, tuple)) and len(given) > 0, "tools", given, "a list of at least one function")
    tools = tuple(one if isinstance(one, Tool) else Tool(one) for one in given)
    names = [tool.name for tool in tools]
    for name in names:
        require(names.count(name) == 1, "tools", names, f"different names; {name!r} occurs twice")
    return tools
