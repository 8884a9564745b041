"""What a language model reads of a task made of tools, and what it calls: the tools themselves, by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.calls import Argument, Call, Refusal
from modelnative.tasks.contract.task import TaskSpec, require
from modelnative.tasks.tools.call_table import NONE
from modelnative.tasks.tools.grammar import FULL, OPEN
from modelnative.tasks.tools.interpreter import Interpreter
from modelnative.tasks.tools.problems import Inputs, ProblemList, described, per_stage
from modelnative.tasks.tools.tool import Kind, Tool, Value
from modelnative.tasks.tools.vocabulary import ToolVocabulary

RULES = (
    "Reach the answer by calling tools. Every argument must be one of the given values, an earlier result, or one of "
    "the listed choices. answer(value) ends the episode; the value must be a given value or a result. "
    "There is room for {calls}."
)


class ToolWords:
    """What `ToolTask` says to a language model."""

    spec: TaskSpec
    tools: tuple[Tool[..., Any], ...]
    listed: ProblemList
    vocabulary: ToolVocabulary
    interpreter: Interpreter
    asked: dict[str, str]

    def row_of(self, context: Tensor) -> int:
        """The first problem in the list with a context, int64 [L]."""
        raise NotImplementedError

    def rules(self) -> str:
        """See `Task.rules`."""
        most = self.interpreter.most_results
        return RULES.format(calls=f"{most} result{'s' * (most > 1)}")

    def prompt(self, problems: Any, i: int) -> str:
        """See `Task.prompt`; `ask` of `ToolTask` with the inputs of the problem."""
        row = self.row_of(problems.context[i])
        stage, inputs = self.listed.stages[self.listed.stage[row]], self.listed.inputs[row]
        return self.asked[stage].format_map(inputs) if self.asked else f"{stage}: {described(inputs)}"

    def show(self, row: Sequence[int]) -> str:
        """See `Task.show`: a number, a string or bool, or ERROR."""
        names = [self.spec.vocabulary[token] for token in row if token != self.spec.end]
        if not names or names[0] not in ("INT", "FLOAT"):
            return names[0].strip("'\"") if names else ""
        sign, digits = ("-", names[2:]) if names[1] == "-" else ("", names[1:])
        written = "".join(digits)
        places = self.vocabulary.decimals
        if names[0] == "FLOAT" and places:
            written = written.zfill(places + 1)
            written = f"{written[:-places]}.{written[-places:]}"
        return sign + written

    def calls(self) -> list[Call]:
        """See `Task.calls`."""
        calls = [self._tool_call(tool) for tool in self.tools]
        values = [v for given in self.listed.inputs[:1000] for v in given.values()]
        types = dict.fromkeys([*(tool.returns.type for tool in self.tools), *map(type, values)])
        kinds = tuple(Kind(kind) for kind in (bool, int, float, str) if kind in types)
        argument = Argument(kinds, "a given value or an earlier result")
        doc = "Answer with a value, which ends the episode."
        return [*calls, Call("answer", doc, self._answer_keys, self._read_answer, {"value": argument}, uses="2")]

    def _tool_call(self, tool: Tool[..., Any]) -> Call:
        arguments = {name: Argument((kind,), tool.described[name]) for name, kind in tool.parameters.items()}

        def keys(state: Any, given: Mapping[str, Any]) -> list[str]:
            if int(state.mode[0]) == FULL:
                raise Refusal("there is no room for another result; answer with one of the values")
            return [tool.name, *(self._named(state, name, kind, given[name]) for name, kind in tool.parameters.items())]

        def read(state: Any, keys: Sequence[str]) -> tuple[dict[str, Any], int] | None:
            count = 1 + len(tool.parameters)
            if keys[0] != tool.name or len(keys) < count or int(state.mode[0]) >= OPEN:
                return None
            pairs = zip(tool.parameters.items(), keys[1:count], strict=True)
            values = {name: self._value(state, kind, key) for (name, kind), key in pairs}
            return None if None in values.values() else (values, count)

        doc = tool.doc.partition("\n\nArgs:")[0]
        return Call(tool.name, doc, keys, read, arguments, uses=str(1 + len(arguments)))

    def _at_hand(self, state: Any) -> dict[str, Value]:
        """The inputs and results of an episode, by name."""
        cells, objects = state.cells[0].tolist(), self.interpreter.values.objects
        found = {name: objects[cells[k]] for k, name in enumerate(self.interpreter.slots) if cells[k] != NONE}
        return {name: value for name, value in found.items() if value is not None}

    def _named(self, state: Any, argument: str, kind: Kind | None, value: Value) -> str:
        """The name of an input or result that is shown like a value, or of a constant of the kind."""
        at_hand, written = self._at_hand(state), self.vocabulary.same(value)
        # Several may look alike: the one that equals the value, or else the latest result.
        same = [n for n, v in at_hand.items() if (kind is None or kind.takes(v)) and self.vocabulary.same(v) == written]
        exact = [name for name in same if at_hand[name] == value]
        if not exact and kind is not None and value in kind.choices:
            return repr(value)
        if not same:
            listed = ", ".join(dict.fromkeys(self._text(v) for v in at_hand.values()))
            raise Refusal(f"{argument}: {self._text(value)} is neither given nor a result; at hand are {listed}")
        return (exact or same)[-1]

    def _value(self, state: Any, kind: Kind, key: str) -> Value | None:
        """The value that a key names, as it is shown."""
        value = next((choice for choice in kind.choices if repr(choice) == key), self._at_hand(state).get(key))
        return round(value, self.vocabulary.decimals) if isinstance(value, float) else value

    def _text(self, value: Value) -> str:
        return f"{value:.{self.vocabulary.decimals}f}" if isinstance(value, float) else str(value)

    def _answer_keys(self, state: Any, given: Mapping[str, Any]) -> list[str]:
        return ["ANS", self._named(state, "value", None, given["value"])]

    def _read_answer(self, state: Any, keys: Sequence[str]) -> tuple[dict[str, Any], int] | None:
        value = self._at_hand(state).get(keys[1]) if len(keys) > 1 and keys[0] == "ANS" else None
        if value is None or int(state.mode[0]) >= OPEN:
            return None
        return {"value": round(value, self.vocabulary.decimals) if isinstance(value, float) else value}, 2


def questions(ask: Any, listed: ProblemList) -> dict[str, str]:
    """Return what is asked in each stage; empty without `ask`.

    Raises:
        UserError: it is no text, or has names in braces that are no inputs of each problem of the stage.
    """
    if ask is None:
        return {}
    asked = per_stage("ask", ask, listed.stages)
    for stage, text in asked.items():
        require(isinstance(text, str) and text.strip() != "", "ask", text, "a text, or one for each stage")
        for number, inputs in zip(listed.stage, listed.inputs, strict=True):
            if listed.stages[number] == stage:
                _require_inputs(text, stage, inputs)
    return asked


def _require_inputs(text: str, stage: str, inputs: Inputs) -> None:
    """Raise a `UserError` unless the text can be filled in and names every input, without which it cannot be solved."""
    try:
        text.format_map(inputs)
        left_out = [name for name in inputs if text.format_map({**inputs, name: _Mark()}).count(_MARK) == 0]
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        allowed = f"the inputs of stage {stage!r} in braces: {', '.join(inputs)}"
        raise UserError(f"ask: {text!r} is not allowed; expected {allowed} ({error})") from error
    require(not left_out, "ask", text, f"every input of stage {stage!r} in braces, {', '.join(left_out)} too")


_MARK = "\0"


class _Mark:
    """Stands for an input whose use in a text is looked for, whatever its format."""

    def __format__(self, spec: str) -> str:
        return _MARK

    def __repr__(self) -> str:
        return _MARK
