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
                require(
                    name.isidentifier() or what not in ("an input", "a tool"),
                    what,
                    name,
                    "a name that is a valid identifier",
                )
                if name in meaning:
                    raise UserError(f"{what}: {name!r} is not allowed; it is already the name of {meaning[name]}")
                meaning[name] = what
                self.ids[name] = len(self.ids)
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

    def number(self, value: int | float, places: int) -> list[int] | None:
        """Encode a sign and right-aligned digits; None if there are more than `places`."""
        written = str(abs(self.scaled(value) if isinstance(value, float) else value))
        if len(written) > places:
            return None
        sign = self.ids["-"] if value < 0 and written != "0" else self.end
        return [sign, *[self.end] * (places - len(written)), *(self.ids[digit] for digit in written)]

    def shown(self, value: Value) -> list[int] | None:
        """Encode a value as feedback, [width]; None if it cannot be shown."""
        if isinstance(value, (bool, str)):
            symbol = self.ids.get(repr(value))
            return None if symbol is None else [symbol, *[self.end] * (self.width - 1)]
        written = self.number(value, self.digits)
        return None if written is None else [self.ids["FLOAT" if isinstance(value, float) else "INT"], *written]

    def same(self, value: Value) -> object:
        """Return a key that is equal for values that are the same answer."""
        return repr(value) if isinstance(value, (bool, str)) else self.scaled(value)

    def contexts(self, listed: ProblemList) -> tuple[list[list[int]], list[str]]:
        """Encode the context of each problem; return the contexts and a name for each position.

        A context is the stage and then the name and value of each input, blank if the problem does not have it.
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
        """Encode an input in the context: its name, then a symbol, or a sign and `width` digits."""
        if value is None:
            return [self.end] * (2 + width)
        if isinstance(value, (bool, str)):
            return [self.ids[name], self.ids[repr(value)]]
        written = self.number(value, width)
        assert written is not None, "`width` is that of the widest value"
        return [self.ids[name], *written]
