"""The problems of a task made of tools: listed, typed, written as tokens."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from modelnative.errors import UserError, choose
from modelnative.tasks.contract.task import require
from modelnative.tasks.tools.tool import Kind, Tool, Value, plain_value

Inputs: TypeAlias = dict[str, Value]
Ask: TypeAlias = Callable[[Inputs], Any]

MOST = 1_000_000  # problems of a task; they are listed
FIXED = ("ERROR", "INT", "FLOAT", "ANS", "START", "EOS")
DIGITS = tuple("0123456789")
EXAMPLE = "problems={'easy': {'f': range(0, 120)}}"


@dataclass(frozen=True)
class Listed:
    """All problems.

    Attributes:
        stages: their names, easiest first.
        names: the names of all inputs, in the order in which they first occur.
        kinds: the type of each input.
        stage: of each problem, the index of its stage.
        inputs: of each problem.
        target: of each problem.
    """

    stages: tuple[str, ...]
    names: tuple[str, ...]
    kinds: dict[str, type]
    stage: list[int]
    inputs: list[Inputs]
    target: list[Value]

    @classmethod
    def of(cls, problems: Any, target: Ask | Mapping[str, Ask]) -> Listed:
        """From what a user writes; see `ToolTask`.

        Raises:
            UserError: naming the problem that is not allowed.
        """
        by_stage = {name: _stage(name, given) for name, given in _stages(problems).items()}
        count = sum(map(len, by_stage.values()))
        require(count <= MOST, "problems", count, f"at most {MOST}, because they are listed; use fewer values")
        kinds = _kinds(by_stage)
        asks = per_stage("target", target, tuple(by_stage))
        stage: list[int] = []
        inputs: list[Inputs] = []
        targets: list[Value] = []
        for index, (name, listed) in enumerate(by_stage.items()):
            seen = set()
            for given in listed:
                # Some whole numbers among floats are floats, too; and twice the same problem is one.
                typed = {key: float(value) if kinds[key] is float else value for key, value in given.items()}
                if (key := tuple(sorted(typed.items()))) not in seen:
                    seen.add(key)
                    stage.append(index)
                    inputs.append(typed)
                    targets.append(_target(name, asks[name], typed))
        return cls(tuple(by_stage), tuple(kinds), kinds, stage, inputs, targets)

    def keys(self) -> list[int]:
        """A canonical key for each problem, from its content alone: adding problems leaves the others in their splits.

        Different problems have different keys but for a chance of n² / 2⁶⁵.
        """
        texts = (
            json.dumps([self.stages[s], sorted(given.items())])
            for s, given in zip(self.stage, self.inputs, strict=True)
        )
        digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
        return [int.from_bytes(digest, "little", signed=True) for digest in digests]


def per_stage(field: str, given: Any, stages: Sequence[str]) -> dict[str, Any]:
    """What a user gave for each stage by name, or once for all.

    Raises:
        UserError: a stage is unknown or missing.
    """
    if not isinstance(given, Mapping):
        return dict.fromkeys(stages, given)
    for name in given:
        choose(f"{field}: stage", name, stages)
    for name in stages:
        require(name in given, field, sorted(given), f"every stage, {name!r} too")
    return dict(given)


def _stages(problems: Any) -> dict[str, Any]:
    """By name; what is no dictionary of stages is one stage, T0."""
    if isinstance(problems, Mapping) and problems:
        whole = {name: _few(name, part) for name, part in problems.items()}
        are_stages = {isinstance(part, Mapping) or any(isinstance(p, Mapping) for p in part) for part in whole.values()}
        if are_stages == {True}:
            for name in whole:
                require(isinstance(name, str) and name != "", "problems: stage", name, "a name")
            return whole
        require(
            are_stages == {False},
            "problems",
            list(problems),
            f"either inputs with their values, or stages with their problems: {EXAMPLE}",
        )
        return {"T0": whole}
    listed = _few("problems", problems)
    require(len(listed) > 0, "problems", problems, f"at least one problem, such as {EXAMPLE}")
    return {"T0": listed}


def _few(name: object, values: Any) -> Any:
    """A mapping as it is, anything else as a list that has an end."""
    if isinstance(values, Mapping):
        return values
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(f"problems: {name}: {values!r} is not allowed; expected values to choose from: {EXAMPLE}")
    listed = list(itertools.islice(values, MOST + 1))
    require(len(listed) <= MOST, f"problems: {name}", f"{MOST} values or more", f"at most {MOST}")
    return listed


def _stage(name: str, given: Any) -> list[Inputs]:
    """The problems of one stage: all combinations of the values of each input, or as they are listed."""
    if isinstance(given, Mapping):
        values = {key: _few(key, part) for key, part in given.items()}
        count = 1
        for part in values.values():
            count *= len(part)
        require(count <= MOST, f"problems: {name}", f"{count} combinations", f"at most {MOST}; use fewer values")
        given = [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
    require(len(given) > 0, "problems", name, "at least one problem in every stage")
    for problem in given:
        right = isinstance(problem, Mapping) and len(problem) > 0 and all(isinstance(key, str) for key in problem)
        require(right, f"problems: {name}", problem, "a dictionary of inputs by name, such as {'f': 50}")
    try:
        return [{key: plain_value(value) for key, value in problem.items()} for problem in given]
    except TypeError as error:
        raise UserError(f"problems: {name}: an input is not allowed: {error}") from error


def _kinds(by_stage: dict[str, list[Inputs]]) -> dict[str, type]:
    """The type of each input: one for all problems, but that whole numbers may stand among floats."""
    found: dict[str, set[type]] = {}
    for listed in by_stage.values():
        for problem in listed:
            for key, value in problem.items():
                found.setdefault(key, set()).add(type(value))
    for key, types in found.items():
        said = " and ".join(sorted(kind.__name__ for kind in types))
        require(len(types) == 1 or types == {int, float}, f"problems: input {key}", said, "values of one type")
    return {key: float if float in types else types.pop() for key, types in found.items()}


def _target(stage: str, ask: Ask, inputs: Inputs) -> Value:
    require(callable(ask), "target", ask, "a function from a problem, a dictionary of inputs, to the right answer")
    where = f"target: for {described(inputs)} of stage {stage!r}"
    answer = asked(where, ask, inputs)
    try:
        answer = Kind(float).convert(answer) if isinstance(answer, float) else plain_value(answer)
    except TypeError as error:
        raise UserError(f"{where} it is not allowed: {error}") from error
    return answer


def asked(where: str, ask: Ask, inputs: Inputs) -> Any:
    """What a function of the user says of a problem.

    Raises:
        UserError: it raises; the message begins with `where`.
    """
    try:
        return ask(dict(inputs))
    except Exception as error:
        raise UserError(f"{where} it raised {type(error).__name__}: {error}") from error


def described(inputs: Inputs) -> str:
    """As a person reads it.

    Example:
        >>> described({"f": 50, "unit": "C"})
        'f=50 unit=C'
    """
    return " ".join(f"{name}={value}" for name, value in inputs.items())


class Alphabet:
    """The tokens of a task made of tools, and how values are written with them.

    A number is a sign and digits, with `decimals` places for a float (the point is not written); strings and bools are
    one token each.

    Args:
        tools: of the task.
        listed: its problems.
        results: how many results there can be.
        digits: of a number in feedback.
        decimals: of a float.

    Raises:
        UserError: two tokens have one name.
    """

    def __init__(
        self, tools: Sequence[Tool[..., Any]], listed: Listed, results: int, digits: int, decimals: int
    ) -> None:
        self.digits, self.decimals = digits, decimals
        kinds = [kind for tool in tools for kind in (*tool.parameters.values(), tool.returns)]
        choices = [choice for kind in kinds for choice in kind.choices]
        inputs = [value for given in listed.inputs for value in given.values()]
        symbols = dict.fromkeys(v for v in (*choices, *inputs) if isinstance(v, (bool, str)))
        # True is 1 for a dictionary, but its token is another.
        numbers = dict.fromkeys(repr(c) for c in choices if not isinstance(c, (bool, str)))
        self.constants = dict.fromkeys((type(c), c) for kind in kinds for c in kind.choices)
        groups: list[tuple[str, Sequence[str]]] = [
            ("a sign or digit", (*DIGITS, "-", *FIXED)),
            ("a value", list(dict.fromkeys(map(repr, symbols)))),
            ("a value", [number for number in numbers if number not in DIGITS]),
            ("a stage", [f"?{stage}" for stage in listed.stages]),
            ("an input", listed.names),
            ("a result", [f"R{i + 1}" for i in range(results)]),
            ("a tool", [tool.name for tool in tools]),
        ]
        self.ids: dict[str, int] = {}
        meaning: dict[str, str] = {}
        for what, names in groups:
            for name in names:
                require(
                    name.isidentifier() or what not in ("an input", "a tool"), what, name, "a name like a variable's"
                )
                if name in meaning:
                    raise UserError(f"{what}: {name!r} is not allowed; it is the name of {meaning[name]} already")
                meaning[name] = what
                self.ids[name] = len(self.ids)
        self.end = self.ids["EOS"]

    @property
    def width(self) -> int:
        """Tokens of feedback: what it is, a sign, digits."""
        return 2 + self.digits

    def scaled(self, value: int | float) -> int:
        """A number in units of the last place that is shown; two numbers are the same answer if this is the same."""
        if isinstance(value, float):
            return round(round(value, self.decimals) * 10**self.decimals)
        return value * 10**self.decimals

    def number(self, value: int | float, places: int) -> list[int] | None:
        """Sign and digits at the right of so many places, blank at the left; None if there are more."""
        written = str(abs(self.scaled(value) if isinstance(value, float) else value))
        if len(written) > places:
            return None
        sign = self.ids["-"] if value < 0 and written != "0" else self.end
        return [sign, *[self.end] * (places - len(written)), *(self.ids[digit] for digit in written)]

    def shown(self, value: Value) -> list[int] | None:
        """As feedback shows it: [width]; None where it cannot."""
        if isinstance(value, (bool, str)):
            symbol = self.ids.get(repr(value))
            return None if symbol is None else [symbol, *[self.end] * (self.width - 1)]
        written = self.number(value, self.digits)
        return None if written is None else [self.ids["FLOAT" if isinstance(value, float) else "INT"], *written]

    def same(self, value: Value) -> object:
        """Equal for two values that are the same answer."""
        return repr(value) if isinstance(value, (bool, str)) else self.scaled(value)

    def contexts(self, listed: Listed) -> tuple[list[list[int]], list[str]]:
        """What the policy reads of each problem, and a name for each place.

        First the stage; then for every input its name and its value, all blank where a problem does not have it.
        """
        places = ["stage"]
        widths: dict[str, int] = {}
        for name, kind in listed.kinds.items():
            values = [given[name] for given in listed.inputs if name in given]
            numbers = [v for v in values if not isinstance(v, (bool, str))]
            units = (self.scaled(v) if isinstance(v, float) else v for v in numbers)
            widths[name] = max((len(str(abs(unit))) for unit in units), default=0)
            places += [
                name,
                *([f"{name}:{i}" for i in range(widths[name] + 1)] if kind in (int, float) else [f"{name}:"]),
            ]
        rows = []
        for stage, given in zip(listed.stage, listed.inputs, strict=True):
            row = [self.ids[f"?{listed.stages[stage]}"]]
            for name, width in widths.items():
                row += self._field(name, given.get(name), width)
            rows.append(row)
        return rows, places

    def _field(self, name: str, value: Value | None, width: int) -> list[int]:
        """An input in the context: its name, then a symbol, or a sign and `width` digits."""
        if value is None:
            return [self.end] * (2 + width)
        if isinstance(value, (bool, str)):
            return [self.ids[name], self.ids[repr(value)]]
        written = self.number(value, width)
        assert written is not None, "the width is that of the widest"
        return [self.ids[name], *written]
