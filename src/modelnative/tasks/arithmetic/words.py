"""What a language model reads of `arithmetic` and `tutorial`, and what it calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelnative.tasks.arithmetic.problems import CTX, FORMULAS, OPERANDS, VOCABULARY
from modelnative.tasks.calculator_words import calculator_rules, display_text
from modelnative.tasks.contract.calls import Call, press_call
from modelnative.tasks.contract.task import TaskSpec

KEYS = tuple(key for key in VOCABULARY if key != "CTX")


class FormulaWords:
    """The prompt and the call of a task with operands and a formula for each stage."""

    spec: TaskSpec

    def prompt(self, problems: Any, i: int) -> str:
        """See `Task.prompt`."""
        digits = [token for token in problems.context[i].tolist() if token < CTX]
        given = " ".join(f"{name}={digit}" for name, digit in zip(OPERANDS, digits, strict=False))
        return f"{given}. Compute {FORMULAS[int(problems.stage[i])]}."

    def calls(self) -> list[Call]:
        """See `Task.calls`."""
        return [press_call(self.spec.vocabulary, ("3", "MUL", "7"), KEYS)]


class ArithmeticWords(FormulaWords):
    """What `Arithmetic` says to a language model."""

    closed_loop: bool

    def rules(self) -> str:
        """See `Task.rules`."""
        return calculator_rules(["STO"], ["RCL"], 1, self.closed_loop)

    def show(self, row: Sequence[int]) -> str:
        """See `Task.show`."""
        return display_text(VOCABULARY, row, self.spec.end)
