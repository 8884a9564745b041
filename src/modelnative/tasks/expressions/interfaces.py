"""What expressions are worked out with: a calculator and the text before one's eyes, or a calculator and paper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.calculator import ANS, CTX, STO, PocketCalculator
from modelnative.tasks.expressions import paper
from modelnative.tasks.expressions.calculator_oracle import schedule
from modelnative.tasks.expressions.infix import figures, widths
from modelnative.tasks.expressions.paper_oracle import paper_program
from modelnative.tasks.expressions.trees import SUB, Shapes


class Desk(ABC):
    """The keys, what they do, what is seen, and a program for every tree.

    Trees come as `shapes` (n rows), operators int64 [n, most] in codes, and operands int64 [n, most + 1], both in
    reading order. `state` is a batch of n rows, of a type of its own.

    Attributes:
        vocabulary: the keys, and all that is shown; the last one is EOS.
        start: the token before the first key.
        width: tokens of feedback.
        horizon: the most keys.
        reads: the text is in the context.
    """

    vocabulary: tuple[str, ...]
    start: int
    width: int
    horizon: int
    reads: bool

    @abstractmethod
    def begin(self, shapes: Shapes, operators: Tensor, operands: Tensor) -> Any:
        """The state before the first key."""

    @abstractmethod
    def press(self, state: Any, key: Tensor) -> tuple[Any, Tensor]:
        """The state after a key, int64 [n]; and where it had no effect on an episode under way, bool [n]."""

    @abstractmethod
    def over(self, state: Any) -> Tensor:
        """Which episodes have ended: bool [n]."""

    @abstractmethod
    def answer(self, state: Any) -> tuple[Tensor, Tensor]:
        """The value, int64 [n], and whether it was given as an answer, bool [n]."""

    @abstractmethod
    def show(self, state: Any) -> Tensor:
        """What is seen: int64 [n, width]."""

    @abstractmethod
    def program(self, shapes: Shapes, operators: Tensor, operands: Tensor) -> Tensor:
        """Keys that work out each tree: int64 [n, horizon], padded with EOS."""

    @abstractmethod
    def describe(self, state: Any, i: int) -> dict[str, str]:
        """As `Task.registers`."""


class Pocket(Desk):
    """The calculator, the text in the context, and the display if it is shown."""

    start, reads = CTX, True

    def __init__(self, machine: PocketCalculator, operators: int, shown: bool) -> None:
        self.machine, self.vocabulary, self.width = machine, machine.vocabulary, 9 if shown else 0
        # The longest program stores at all operators but the root.
        self.horizon = 4 * operators + (machine.digits - 1) * (operators + 1)

    def begin(self, shapes: Shapes, operators: Tensor, operands: Tensor) -> Any:
        return self.machine.empty(operators[:, 0])

    def press(self, state: Any, key: Tensor) -> tuple[Any, Tensor]:
        after, row = self.machine.press(state, key)
        return after, self.machine.rules(key.device).invalid.index_select(0, row)

    def over(self, state: Any) -> Tensor:
        return self.machine.over(state)

    def answer(self, state: Any) -> tuple[Tensor, Tensor]:
        return state.value, state.answered

    def show(self, state: Any) -> Tensor:
        return self.machine.display(state.value) if self.width else state.value.new_empty(len(state), 0)

    def program(self, shapes: Shapes, operators: Tensor, operands: Tensor) -> Tensor:
        digits, end = self.machine.digits, self.machine.end
        # Places past the horizon are for keys that a tree has not, and cut off in the end.
        keys = schedule(shapes, operators, widths(operands, digits), self.machine.memories, past=self.horizon)
        program = torch.full((len(operands), self.horizon + digits), end, device=operands.device)
        for place, token in figures(keys.operand, operands, digits):
            program.scatter_(1, place, token)
        # The codes of operators and the tokens are in the same order; between them stands ANS.
        token = torch.where(keys.key > SUB, keys.key + (STO - SUB - 1), keys.key + CTX)
        program.scatter_(1, keys.place, token)
        return program.scatter(1, keys.end[:, None], ANS)[:, : self.horizon]

    def describe(self, state: Any, i: int) -> dict[str, str]:
        return self.machine.registers(state, i)


class Paper(Desk):
    """A calculator beside a sheet of paper, on which the text stands.

    Args:
        operators: the most.
        memories: cells; with 0 one, and one more for every three operators.
    """

    vocabulary, start, width, reads = paper.VOCABULARY, paper.CTX, paper.WINDOW, False

    def __init__(self, operators: int, memories: int) -> None:
        self.memories, self.horizon = memories, paper.BUDGET * operators
        self.most_cells = memories or 1 + operators // 3

    def begin(self, shapes: Shapes, operators: Tensor, operands: Tensor) -> Any:
        return paper.sheet(shapes, operators, operands, self._cells(operators))

    def press(self, state: Any, key: Tensor) -> tuple[Any, Tensor]:
        # There is no key without effect: it uses up one of those that may be pressed.
        return paper.press(state, key), torch.zeros_like(key, dtype=torch.bool)

    def over(self, state: Any) -> Tensor:
        return torch.eq(state.keys, 0)

    def answer(self, state: Any) -> tuple[Tensor, Tensor]:
        return state.value, state.answered

    def show(self, state: Any) -> Tensor:
        return paper.window(state)

    def program(self, shapes: Shapes, operators: Tensor, operands: Tensor) -> Tensor:
        return paper_program(shapes, operators, self._cells(operators), self.most_cells, self.horizon)

    def _cells(self, operators: Tensor) -> Tensor:
        """Of each tree: int64 [n]."""
        size = (operators > 0).sum(1)
        return torch.full_like(size, self.memories) if self.memories else 1 + size // 3

    def describe(self, state: Any, i: int) -> dict[str, str]:
        return paper.described(state, i)
