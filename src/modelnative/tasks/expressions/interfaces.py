"""The tools of `expressions`: a calculator and the text in the context, or a calculator and paper.

Both interfaces have these attributes: `vocabulary`, the keys and all tokens that are shown, of which the last one is
EOS; `start`, the token before the first key; `width`, tokens of feedback; `horizon`, the maximum number of keys;
`text_in_context`, whether the context holds the expression.

Trees are given as `shapes` (n rows), operator codes int64 [n, most] and operands int64 [n, most + 1], both in reading
order. `state` is a batch of n rows; its type depends on the interface. Both have these methods:

| method | returns |
|---|---|
| `begin(shapes, operators, operands)` | the state before the first key |
| `press(state, key, target)` | the state after a key, int64 [n]; `done`, `success` and `invalid` as in `Step`, \
bool [n] each; `target`, int64 [n], are the right answers |
| `feedback(state)` | the tokens that are shown: int64 [n, width] |
| `program(shapes, operators, operands)` | a program that evaluates each tree: int64 [n, horizon], padded with EOS |
| `registers(state, i)` | see `Task.registers` |
"""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.tasks.calculator import ANS, CTX, PLACES, STO, CalculatorState, PocketCalculator
from modelnative.tasks.expressions import paper
from modelnative.tasks.expressions.calculator_oracle import shortest_program
from modelnative.tasks.expressions.infix import figures, widths
from modelnative.tasks.expressions.paper_oracle import paper_program
from modelnative.tasks.expressions.trees import SUB, Shapes


class CalculatorInterface:
    """The calculator, with the text in the context and, if `shown`, the display as feedback."""

    start, text_in_context = CTX, True

    def __init__(self, machine: PocketCalculator, operators: int, shown: bool) -> None:
        self.machine, self.vocabulary, self.width = machine, machine.vocabulary, PLACES if shown else 0
        # The longest program stores the result of every operator but the root.
        self.horizon = 4 * operators + (machine.digits - 1) * (operators + 1)
        self.press, self.registers = machine.press, machine.registers

    def begin(self, shapes: Shapes, operators: Tensor, operands: Tensor) -> CalculatorState:
        return self.machine.empty(operators[:, 0])

    def feedback(self, state: CalculatorState) -> Tensor:
        return self.machine.display(state.value) if self.width else state.value.new_empty(len(state), 0)

    def program(self, shapes: Shapes, operators: Tensor, operands: Tensor) -> Tensor:
        digits, end = self.machine.digits, self.machine.end
        # Places beyond the horizon hold the keys that a tree does not need; they are cut off below.
        keys = shortest_program(shapes, operators, widths(operands, digits), self.machine.memories, self.horizon)
        program = torch.full((len(operands), self.horizon + digits), end, device=operands.device)
        for place, token in figures(keys.operand, operands, digits):
            program.scatter_(1, place, token)
        # Codes and tokens are in the same order, but for ANS between the operators and STO1.
        token = torch.where(keys.key > SUB, keys.key + (STO - SUB - 1), keys.key + CTX)
        program.scatter_(1, keys.place, token)
        return program.scatter(1, keys.end[:, None], ANS)[:, : self.horizon]


class PaperInterface:
    """A calculator and a sheet of paper with the text (`paper`).

    Args:
        operators: the largest number.
        memories: memory cells; 0 for one cell, and one more for every three operators.
    """

    vocabulary, start, width, text_in_context = paper.VOCABULARY, paper.CTX, paper.WINDOW, False
    feedback, registers = staticmethod(paper.window), staticmethod(paper.registers)

    def __init__(self, operators: int, memories: int) -> None:
        self.memories, self.horizon = memories, paper.BUDGET * operators
        self.most_cells = memories or 1 + operators // 3

    def begin(self, shapes: Shapes, operators: Tensor, operands: Tensor) -> paper.PaperState:
        return paper.begin(shapes, operators, operands, self._cells(operators))

    def press(
        self, state: paper.PaperState, key: Tensor, target: Tensor
    ) -> tuple[paper.PaperState, Tensor, Tensor, Tensor]:
        after = paper.press(state, key)
        success = after.answered & (state.keys_left > 0) & (after.value == target)
        # No key is invalid: each uses up one of the keys that are left.
        return after, torch.eq(after.keys_left, 0), success, torch.zeros_like(success)

    def program(self, shapes: Shapes, operators: Tensor, operands: Tensor) -> Tensor:
        return paper_program(shapes, operators, self._cells(operators), self.most_cells, self.horizon)

    def _cells(self, operators: Tensor) -> Tensor:
        """Memory cells for each tree: int64 [n]."""
        size = (operators > 0).sum(1)
        return torch.full_like(size, self.memories) if self.memories else 1 + size // 3
