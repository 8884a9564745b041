"""What a language model reads of `expressions`, and what it calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelnative.tasks.calculator import CTX, calculator_rules, display_text
from modelnative.tasks.contract.calls import Call, press_call
from modelnative.tasks.contract.task import TaskSpec
from modelnative.tasks.expressions import paper

SIGNS = {"MUL": "*", "ADD": "+", "SUB": "-"}
KINDS = {"NUM": "a number", "VAL": "the value", "MEM": "a stored value", "LOST": "a lost value"}
PAPER_RULES = """You evaluate an expression that is written on a sheet of paper, with a calculator that has {cells}.
You see the item at the cursor and its two neighbors: brackets, what kind of item it is, and the operators between them.
The calculator reads the numbers themselves from the paper. Several brackets look like one.
PREV NEXT: move the cursor by one item.
HERE LEFT RIGHT: move to the item at the cursor or to its neighbor and enter it: it is combined with the value if an
operator is pending, otherwise it becomes the value. If it is next to the value, both become one item.
MUL ADD SUB: make an operator pending; no effect without a value or while one is pending.
STO: store the value in a free cell; its item can be entered again, which frees the cell.
A value is lost when a number is entered that does not combine with it.
ANS: answer with the value, which ends the episode. EOS: end the episode without an answer."""
PAPER_KEYS = ("MUL", "ADD", "SUB", "STO", "PREV", "NEXT", "HERE", "LEFT", "RIGHT", "ANS", "EOS")


class ExpressionWords:
    """What `Expressions` says to a language model."""

    spec: TaskSpec
    shown: str
    digits: int
    chosen: dict[str, Any]
    letters: tuple[str, ...]

    def rules(self) -> str:
        """See `Task.rules`."""
        count = self.chosen["memories"]
        if self.shown == "paper":
            cells = "one memory cell, or more for a long expression" if not count else f"{count} memory cell(s)"
            return PAPER_RULES.format(cells=cells)
        stores, recalls = ([f"{name}{k + 1}" for k in range(count)] for name in ("STO", "RCL"))
        return calculator_rules(stores, recalls, self.digits, self.shown == "display")

    def prompt(self, problems: Any, i: int) -> str:
        """See `Task.prompt`."""
        if self.shown == "paper":
            return "Evaluate the expression on the paper."
        tokens = (token for token in problems.context[i].tolist() if token not in (CTX, self.spec.end))
        words = (self.letters[token] for token in tokens)
        return f"Compute {''.join(SIGNS.get(word, word) for word in words)}."

    def show(self, row: Sequence[int]) -> str:
        """See `Task.show`."""
        if self.shown != "paper":
            return display_text(self.spec.vocabulary, row, self.spec.end)
        names = ["" if token == self.spec.end else self.spec.vocabulary[token] for token in row]
        before, rest = names[0], names[1:]
        items = []
        for bracket, kind, sign in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            word = KINDS.get(kind, "nothing")
            word = f"( {word}" if bracket == "(" else f"{word} )" if bracket == ")" else word
            items.append(f"{word}{f' {SIGNS[sign]}' if sign else ''}")
        left, here, right = items
        return f"left: {f'{SIGNS[before]} ' if before else ''}{left}; at the cursor: {here}; right: {right}"

    def calls(self) -> list[Call]:
        """See `Task.calls`."""
        if self.shown == "paper":
            return [press_call(paper.VOCABULARY, ("HERE", "ADD", "RIGHT"), PAPER_KEYS)]
        keys = tuple(key for key in self.spec.vocabulary if key not in ("CTX", "(", ")"))
        return [press_call(self.spec.vocabulary, ("3", "MUL", "7"), keys)]
