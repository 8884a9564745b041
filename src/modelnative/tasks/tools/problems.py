"""The problems of a task made of tools, listed with their inputs and targets."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from modelnative.errors import UserError, choose, shown
from modelnative.tasks.contract.task import require
from modelnative.tasks.tools.tool import Kind, Value, plain_value

Inputs: TypeAlias = dict[str, Value]
FromInputs: TypeAlias = Callable[[dict[str, Any]], Any]  # Any, so that inputs are arguments of the tools

MOST = 1_000_000  # problems of a task, which are all listed
EXAMPLE = "problems={'easy': {'f': range(0, 120)}}"


@dataclass(frozen=True)
class ProblemList:
    """All problems of a task.

    Attributes:
        stages: the names of the stages, easiest first.
        names: the names of all inputs, in the order of their first occurrence.
        kinds: the type of each input.
        stage: the index of the stage of each problem.
        inputs: the inputs of each problem.
        target: the target of each problem.
    """

    stages: tuple[str, ...]
    names: tuple[str, ...]
    kinds: dict[str, type]
    stage: list[int]
    inputs: list[Inputs]
    target: list[Value]

    @classmethod
    def of(cls, problems: Any, target: FromInputs | Mapping[str, FromInputs]) -> ProblemList:
        """Make the list from the arguments of `ToolTask`.

        Raises:
            UserError: a problem is not allowed.
        """
        by_stage = {name: _stage(name, given) for name, given in _stages(problems).items()}
        count = sum(map(len, by_stage.values()))
        require(count <= MOST, "problems", count, f"at most {MOST}, because they are listed; use fewer values")
        kinds = _kinds(by_stage)
        functions = per_stage("target", target, tuple(by_stage))
        stage: list[int] = []
        inputs: list[Inputs] = []
        targets: list[Value] = []
        for index, (name, listed) in enumerate(by_stage.items()):
            # Integers among floats become floats; duplicates are removed.
            typed = [{key: float(v) if kinds[key] is float else v for key, v in given.items()} for given in listed]
            distinct = {tuple(sorted(given.items())): given for given in typed}.values()
            stage += [index] * len(distinct)
            inputs += distinct
            targets += [_target(name, functions[name], given) for given in distinct]
        return cls(tuple(by_stage), tuple(kinds), kinds, stage, inputs, targets)

    def keys(self) -> list[int]:
        """Return a key for each problem, from its content alone, so that adding problems does not change the splits.

        Two of n different problems have equal keys with probability n² / 2⁶⁵.
        """
        pairs = zip(self.stage, self.inputs, strict=True)
        texts = (json.dumps([self.stages[s], sorted(given.items())]) for s, given in pairs)
        digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
        return [int.from_bytes(digest, "little", signed=True) for digest in digests]


def per_stage(field: str, given: Any, stages: Sequence[str]) -> dict[str, Any]:
    """Return the value for each stage from one value for all stages, or from a mapping by stage.

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
    """Return the problems by stage; without stages there is one stage, T0."""
    if isinstance(problems, Mapping) and problems:
        whole = {name: _few(name, part) for name, part in problems.items()}
        are_stages = {isinstance(part, Mapping) or any(isinstance(p, Mapping) for p in part) for part in whole.values()}
        if are_stages == {True}:
            for name in whole:
                require(isinstance(name, str) and name != "", "problems: stage", name, "a name")
            return whole
        allowed = f"either inputs with their values, or stages with their problems: {EXAMPLE}"
        require(are_stages == {False}, "problems", list(problems), allowed)
        return {"T0": whole}
    listed = _few("problems", problems)
    require(len(listed) > 0, "problems", problems, f"at least one problem, such as {EXAMPLE}")
    return {"T0": listed}


def _few(name: object, values: Any) -> Any:
    """Return a mapping unchanged and anything else as a list of bounded length."""
    if isinstance(values, Mapping):
        return values
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(f"problems: {name}: {shown(values)} is not allowed; expected values to choose from: {EXAMPLE}")
    listed = list(itertools.islice(values, MOST + 1))
    require(len(listed) <= MOST, f"problems: {name}", f"{MOST} values or more", f"at most {MOST}")
    return listed


def _stage(name: str, given: Any) -> list[Inputs]:
    """Return the problems of one stage: all combinations of the values of each input, or a list as it is."""
    if isinstance(given, Mapping):
        values = {key: _few(key, part) for key, part in given.items()}
        count = math.prod(map(len, values.values()))
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
    """Return the type of each input, which is the same for all problems; integers among floats are allowed."""
    found: dict[str, set[type]] = {}
    for problem in itertools.chain(*by_stage.values()):
        for key, value in problem.items():
            found.setdefault(key, set()).add(type(value))
    for key, types in found.items():
        types_text = " and ".join(sorted(kind.__name__ for kind in types))
        require(len(types) == 1 or types == {int, float}, f"problems: input {key}", types_text, "values of one type")
    return {key: float if float in types else types.pop() for key, types in found.items()}


def _target(stage: str, function: FromInputs, inputs: Inputs) -> Value:
    allowed = "a function from a problem, a dictionary of inputs, to the right answer"
    require(callable(function), "target", function, allowed)
    where = f"target: for {described(inputs)} of stage {stage!r}"
    answer = call_for(where, function, inputs)
    try:
        return Kind(float).convert(answer) if isinstance(answer, float) else plain_value(answer)
    except TypeError as error:
        raise UserError(f"{where} it is not allowed: {error}") from error


def call_for(where: str, function: FromInputs, inputs: Inputs) -> Any:
    """Call a function of the user with the inputs of a problem.

    Raises:
        UserError: the function raises an exception; the message begins with `where`.
    """
    try:
        return function(dict(inputs))
    except Exception as error:
        raise UserError(f"{where} it raised {type(error).__name__}: {error}") from error


def described(inputs: Inputs) -> str:
    """Return the inputs of a problem as text.

    Example:
        >>> described({"f": 50, "unit": "C"})
        'f=50 unit=C'
    """
    return " ".join(f"{name}={value}" for name, value in inputs.items())
