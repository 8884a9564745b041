"""The tokens of a task made of tools, and the encoding of values by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelnative.errors import UserError
from modelnative.tasks.contract.task import require
from modelnative.tasks.tools.problems import ProblemList
from modelnative.tasks.tools.tool import Tool, Value

FIXED = ("ERROR", "INT", "FLOAT", "ANS", "START", "EOS")
DIGITS = tuple("0123456789")
MOST_TOKENS = 100_000


class ToolVocabulary:
    """The tokens of a task made of tools.

    A number is encoded by a sign and digits, with `decimals` places for a float (without the point). A string or bool
    is one token.

    Args:
        tools: the tools.
        listed: the problems.
        results: largest number of results.
        digits: largest number of digits in feedback.
        decimals: places of a float.

    Attributes:
        ids: the id of each token by name.
        constants: the type and value of each constant, as keys.
        end: the id of EOS.

    Raises:
        UserError: two tokens have the same name.
    """

    def __init__(
        self, tools: Sequence[Tool[..., Any]], listed: ProblemList, results: int, digits: int, decimals: int
    ) -> None:
        self.digits, self.decimals = digits, decimals
        kinds = [kind for tool in tools for kind in (*tool.parameters.values(), tool.returns)]
        choices = [choice for kind in kinds for choice in kind.choices]
        inputs = [value for given in listed.inputs for value in given.values()]
        symbols = dict.fromkeys(v for v in (*choices, *inputs) if isinstance(v, (bool, str)))
        # True equals 1 as a dictionary key, but their tokens differ.
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
                is_name = name.isidentifier() or what not in ("an input", "a tool")
                require(is_name, what, name, "a name that is a valid identifier")
                if name in meaning:
                    raise UserError(f"{what}: {name!r} is not allowed; it is already the name of {meaning[name]}")
                meaning[name] = what
                self.ids[name] = len(self.ids)
        count, allowed = len(self.ids), f"at most {MOST_TOKENS}; use fewer strings"
        require(count <= MOST_TOKENS, "problems", f"{count} tokens", allowed)
        self.end = self.ids["EOS"]

    @property
    def width(self) -> int:
        """Tokens of feedback: the type, a sign and the digits."""
        return 2 + self.digits

    def scaled(self, value: int | float) -> int:
        """Return a number in units of the last place that is shown; equal for numbers that are the same answer."""
        if isinstance(value, float):
            return round(round(value, self.decimals) * 10**self.decimals)
        return value * 10**self.decimals

    def written(self, value: Value) -> list[int]:
        """Encode the token of a string or bool, or a sign and digits."""
        if isinstance(value, (bool, str)):
            return [self.ids[repr(value)]]
        digits = str(abs(self.scaled(value) if isinstance(value, float) else value))
        sign = self.ids["-"] if value < 0 and digits != "0" else self.end
        return [sign, *(self.ids[digit] for digit in digits)]

    def shown(self, value: Value) -> list[int] | None:
        """Encode a value as feedback, [width], digits right-aligned; None if it cannot be shown."""
        is_number = not isinstance(value, (bool, str))
        if not is_number and repr(value) not in self.ids:
            return None
        first, *digits = self.written(value)
        if len(digits) > self.digits:
            return None
        blank = [self.end] * (self.digits - len(digits))
        if not is_number:
            return [first, self.end, *blank]
        return [self.ids["FLOAT" if isinstance(value, float) else "INT"], first, *blank, *digits]

    def same(self, value: Value) -> object:
        """Return a key that is equal for values that are the same answer."""
        return repr(value) if isinstance(value, (bool, str)) else self.scaled(value)

    def contexts(self, listed: ProblemList) -> tuple[list[list[int]], list[str]]:
        """Encode the context of each problem; return the contexts and a name for each position.

        A context is the stage and then the name and value of each input, blank if the problem does not have it.
        """
        rows, places = [[self.ids[f"?{listed.stages[stage]}"]] for stage in listed.stage], ["stage"]
        for name, kind in listed.kinds.items():
            fields = [self.written(given[name]) if name in given else [] for given in listed.inputs]
            width = max(map(len, fields))
            places += [name, *([f"{name}:{i}" for i in range(width)] if kind in (int, float) else [f"{name}:"])]
            for row, field in zip(rows, fields, strict=True):
                blank = [self.end] * (width - len(field))
                row += [self.ids[name], field[0], *blank, *field[1:]] if field else [self.end, *blank]
        return rows, places
