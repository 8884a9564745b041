"""Evaluation of infix expressions on a calculator: choosing the order and what to store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.errors import UserError, choose
from modelnative.tasks.calculator import CTX, LIMIT, PocketCalculator
from modelnative.tasks.contract.sampling import TRIES, StageTables, content_key, empty_split, require_listable
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import Problems, Split, State, Step, Task, TaskSpec, in_split, require
from modelnative.tasks.expressions import trees
from modelnative.tasks.expressions.infix import figures, infix, parse_infix, widths
from modelnative.tasks.expressions.interfaces import CalculatorInterface, PaperInterface
from modelnative.tasks.expressions.words import ExpressionWords

LISTED = 1_000_000  # largest number of problems of a stage that `enumerate` lists
REDRAWN = 2048  # trees drawn at once to replace rejected ones
CELLS = 4  # largest number of memories
FIGURES = 3  # largest number of digits of an operand
SIGNS = ("", "*", "+", "-")  # by operator code


@dataclass
class ExpressionProblems(Problems):
    """Adds the tree of the expression; N is the largest number of operators.

    Attributes:
        shape: int64 [n], the number of the tree's shape in `trees.all_shapes`.
        operators: int64 [n, N], in reading order: 1 MUL, 2 ADD, 3 SUB; 0 after the last.
        operands: int64 [n, N + 1], in reading order; 0 after the last.
        target: int64 [n], the value of the expression.
    """

    shape: Tensor
    operators: Tensor
    operands: Tensor
    target: Tensor


@dataclass
class ExpressionState(State):
    """Adds `target`, int64 [n], and `tool`, the state of the interface."""

    target: Tensor
    tool: Any


class Expressions(ExpressionWords, Task[ExpressionProblems, ExpressionState]):
    """Evaluate an infix expression on a pocket calculator (`modelnative.tasks.calculator`) with K memory cells.

    The expression is the context. With `feedback="paper"` it is on a sheet of paper instead (`paper`): it is read
    through a window of three numbers and gets shorter while it is evaluated, so that a decision depends on the window
    alone, whatever the length of the expression.

    Stage En has n operators, drawn uniformly from +, − and ×, and operands from 1 on (a 0 would make 0 a frequent
    answer). All shapes of trees of one size are equally frequent. Trees that need too many cells and trees with a
    subtree whose value does not fit the display are rejected; their operators and operands are drawn again, their shape
    is kept. The text has the fewest brackets that keep the shape, one token for each digit, sign and bracket, and then
    CTX. The oracle is the shortest program that evaluates the tree as it is written (`calculator_oracle`); a program
    that rearranges the terms may be shorter. On paper the oracle's program is short, but not always the shortest
    (`paper_oracle`).

    No tool knows an operand. So the best constant program answers with the most frequent target: it is right on 4.9%
    of E1, 3.2% of E2, 2.8% of E3, 2.0% of E5 and 1.0% of E12. On paper it only has to guess the operators: it is right
    on 34% of E1, and on at least 13% of E2 and 1% of E5. Pressing the keys in reading order, without regard to brackets
    and precedence, is right on 69% of E2, 43% of E3, 15% of E5 and 0.3% of E12. Without a memory cell, 83% of E2, 56%
    of E3, 18% of E5 and 0.1% of E12 can be evaluated as they are written.

    Args:
        operators: number of operators of the last stage, 1 to 12.
        memories: number K of memory cells, 1 to 4; on paper also 0, for one cell and one more for every three
            operators.
        needs: keep only expressions that can be evaluated with at most this many cells; at least 1.
        digits: largest number of digits of an operand, 1 to 3.
        shapes: `unseen` keeps one in five shapes of each size, chosen by a hash; `seen` keeps the others; `all` keeps
            both. E1 and E2 have too few shapes for this and always have all of them.
        feedback: `display` shows the calculator's display after each key (a sign and eight digits, blank when
            empty); `none` is open loop; `paper` shows the paper, and the context is CTX alone.

    Example:
        >>> task = Expressions()
        >>> problem = task.parse(4, "9-(3*4-8*(2+5))")
        >>> task.render(problem, 0)
        'compute 9-(3*4-8*(2+5))'
        >>> " ".join(task.spec.vocabulary[t] for t in task.oracle(problem)[0] if t != task.spec.end)
        '2 ADD 5 MUL 8 STO1 3 MUL 4 SUB RCL1 STO1 9 SUB RCL1 ANS'
    """

    def __init__(
        self,
        operators: int = 5,
        memories: int = 2,
        needs: int = CELLS,
        digits: int = 1,
        shapes: Literal["all", "seen", "unseen"] = "all",
        feedback: Literal["display", "none", "paper"] = "display",
    ) -> None:
        require(1 <= operators <= trees.MOST, "operators", operators, f"1 to {trees.MOST}")
        choose("feedback", feedback, ("display", "none", "paper"))
        on_paper = feedback == "paper"
        allowed = f"{'0 (on paper)' if on_paper else 1} to {CELLS}"
        require(memories <= CELLS and memories >= (not on_paper), "memories", memories, allowed)
        require(needs >= 1, "needs", needs, "at least 1")
        require(1 <= digits <= FIGURES, "digits", digits, f"1 to {FIGURES}")
        choose("shapes", shapes, ("all", "seen", "unseen"))
        self.chosen = {"operators": operators, "memories": memories, "needs": needs, "digits": digits}
        self.shown = feedback
        self.choice, self.most, self.digits = shapes, operators, digits
        self.needs = min(needs, memories or CELLS)
        machine = PocketCalculator(max(1, memories), digits, others=("(", ")"))
        self.letters = machine.vocabulary  # of the text
        calculator = CalculatorInterface(machine, operators, feedback != "none")
        self.interface: Any = PaperInterface(operators, memories) if on_paper else calculator
        # The longest text has brackets around every operator but the root.
        self.text_length = 4 * operators + (digits - 1) * (operators + 1)
        self.shapes = PerDevice(lambda device: trees.all_shapes(operators).to(device))
        self.spec = TaskSpec(
            name="expressions",
            vocabulary=self.interface.vocabulary,
            stages=tuple(f"E{n}" for n in range(1, operators + 1)),
            context_length=self.text_length if self.interface.text_in_context else 1,
            feedback_width=self.interface.width,
            horizon=self.interface.horizon,
            start=self.interface.start,
            end=len(self.interface.vocabulary) - 1,
        )
        self.selected = StageTables(self.spec.stages, lambda stage, _: self._selected_shapes(stage))

    def options(self) -> dict[str, Any]:
        return {**self.chosen, "shapes": self.choice, "feedback": self.shown}

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ExpressionProblems:
        problems, fits = self._draw(stage, self.selected.draw(stage, generator, "all"), generator, split)
        for _ in range(TRIES):
            again = (~fits).nonzero()[:, 0]
            if not len(again):
                return self._with_context(problems)
            # The fewer rows are left, the more often each is drawn; its first draw that fits is used.
            times = max(1, REDRAWN // len(again))
            rows = problems[again.repeat_interleave(times)]
            more, fitting = self._draw(rows.stage, rows.shape, generator, split)
            fitting = fitting.view(-1, times)
            first = torch.arange(len(again), device=again.device) * times + fitting.byte().argmax(1)
            problems, fits = problems.put(again, more[first]), fits.index_copy(0, again, fitting.any(1))
        raise empty_split(split, self.spec.stages[int(stage[again[0]])])

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ExpressionProblems]:
        n, high, shapes = stage + 1, 10**self.digits - 1, self._selected_shapes(stage)
        total = len(shapes) * 3**n * high ** (n + 1)
        require_listable(self.spec.stages[stage], total, LISTED)
        for number in torch.arange(total).split(chunk):
            # The last operand changes fastest, then the other operands, the operators and the shape.
            operands = number[:, None] // high ** torch.arange(n, -1, -1) % high + 1
            rest = number // high ** (n + 1)
            operators = rest[:, None] // 3 ** torch.arange(n - 1, -1, -1) % 3 + 1
            missing = (0, self.most - n)
            trees_here = shapes[rest // 3**n], pad(operators, missing), pad(operands, missing)
            problems, fits = self._checked(torch.full_like(number, stage), *trees_here, split)
            if bool(fits.any()):
                yield self._with_context(problems[fits])

    def parse(self, stage: int, text: str) -> ExpressionProblems:
        n, high = stage + 1, 10**self.digits - 1
        expected = f"{n} operator{'s' * (n > 1)} out of + - * for stage {self.spec.stages[stage]}, operands from 1 to "
        expected += f"{high} and brackets, such as {'+'.join('3724512345678'[: n + 1])!r}"
        try:
            tree = parse_infix(text)
        except ValueError as error:
            raise UserError(f"problem: {text!r} is not allowed; expected {expected}") from error
        right = len(tree.operators) == n and all(1 <= operand <= high for operand in tree.operands)
        require(right, "problem", text, expected)
        missing = self.most - n
        operators, operands = (pad(torch.tensor([row]), (0, missing)) for row in (tree.operators, tree.operands))
        shape = torch.tensor([trees.shape_number(tree.splits)])
        problems, fits = self._checked(torch.tensor([stage]), shape, operators, operands, "all")
        allowed = f"values under {LIMIT:,} in every step, and a tree that {self.needs} memory cells are enough for"
        require(bool(fits.all()), "problem", text, allowed)
        return self._with_context(problems)

    def render(self, problems: ExpressionProblems, i: int) -> str:
        return f"compute {self._texts(problems[i : i + 1])[0]}"

    def records(self, problems: ExpressionProblems, state: ExpressionState) -> list[dict[str, Any]]:
        columns = (problems.stage, problems.operators, problems.operands, problems.shape, problems.target)
        answers = (state.tool.value, state.tool.answered)
        rows = zip(self._texts(problems), *(column.tolist() for column in (*columns, *answers)), strict=True)
        return [
            {
                "problem": text,
                "operators": [SIGNS[code] for code in operators[: stage + 1]],
                "operands": operands[: stage + 2],
                "shape": shape,
                "answer": value if answered else None,
                "target": target,
            }
            for text, stage, operators, operands, shape, target, value, answered in rows
        ]

    def needed(self, problems: ExpressionProblems) -> Tensor:
        """Fewest memory cells that each expression can be evaluated with (see `trees.cells_needed`): int64 [n]."""
        return trees.cells_needed(self._shapes(problems), problems.operators)

    def oracle(self, problems: ExpressionProblems) -> Tensor:
        return self.interface.program(self._shapes(problems), problems.operators, problems.operands)

    # Episodes

    def begin(self, problems: ExpressionProblems) -> ExpressionState:
        tool = self.interface.begin(self._shapes(problems), problems.operators, problems.operands)
        return ExpressionState(torch.zeros_like(problems.stage, dtype=torch.bool), problems.target, tool)

    def step(self, state: ExpressionState, action: Tensor) -> Step[ExpressionState]:
        tool, done, success, invalid = self.interface.press(state.tool, action, state.target)
        after = ExpressionState(done, state.target, tool)
        return Step(after, self.feedback(after), success.float(), done, success, invalid)

    def feedback(self, state: ExpressionState) -> Tensor:
        return self.interface.feedback(state.tool)

    def registers(self, state: ExpressionState, i: int) -> dict[str, str]:
        return self.interface.registers(state.tool, i)

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        return self.interface.machine.state_groups("tool") if self.shown != "paper" else {}

    # Batches of trees

    def _selected_shapes(self, stage: int) -> Tensor:
        return trees.selected_shapes(stage + 1, self.most, self.needs, self.choice)

    def _draw(
        self, stage: Tensor, shape: Tensor, generator: torch.Generator, split: Split
    ) -> tuple[ExpressionProblems, Tensor]:
        """Draw a tree of each shape, int64 [n]; trees outside the split are not admitted."""
        n, device = len(shape), shape.device
        place, size = torch.arange(self.most + 1, device=device), stage[:, None] + 1
        operators = torch.randint(1, 4, (n, self.most), generator=generator, device=device)
        operands = torch.randint(1, 10**self.digits, (n, self.most + 1), generator=generator, device=device)
        return self._checked(stage, shape, operators * (place[:-1] < size), operands * (place <= size), split)

    def _checked(
        self, stage: Tensor, shape: Tensor, operators: Tensor, operands: Tensor, split: Split
    ) -> tuple[ExpressionProblems, Tensor]:
        """The problems, without their context, and whether they are admitted, bool [n]."""
        shapes = self.shapes(shape.device)
        order, low = shapes.order.index_select(0, shape).long(), shapes.low.index_select(0, shape).long()
        target, fits = trees.evaluate(order, low, operators, operands, LIMIT)
        # Most shapes need few cells whatever their operators are; the others are checked with their operators.
        tight = (shapes.largest.index_select(0, shape) > self.needs).nonzero()[:, 0]
        if len(tight):
            rows = shapes[shape.index_select(0, tight)]
            needed = trees.cells_needed(rows, operators.index_select(0, tight))
            fits = fits.index_copy(0, tight, fits.index_select(0, tight) & (needed <= self.needs))
        key = self._key(shape, operators, operands)
        none = shape.new_empty(len(shape), 0)
        return ExpressionProblems(stage, none, key, shape, operators, operands, target), fits & in_split(key, split)

    def _key(self, shape: Tensor, operators: Tensor, operands: Tensor) -> Tensor:
        """The canonical key: int64 [n]."""
        powers = 4 ** torch.arange(self.most, device=shape.device)
        content = [shape * 4**self.most + (operators * powers).sum(1)]
        for part in operands.split(18 // self.digits, 1):  # as many operands as fit into an int64
            powers = 10 ** (self.digits * torch.arange(part.shape[1], device=shape.device))
            content.append((part * powers).sum(1))
        return content_key(torch.stack(content, 1))

    def _with_context(self, problems: ExpressionProblems) -> ExpressionProblems:
        if not self.interface.text_in_context:
            return replace(problems, context=torch.full_like(problems.stage, self.spec.start)[:, None])
        return replace(problems, context=self._text(problems))

    def _text(self, problems: ExpressionProblems) -> Tensor:
        """The texts, in `letters`: int64 [n, text_length]."""
        stage, operators, operands = problems.stage, problems.operators, problems.operands
        count = widths(operands, self.digits)
        layout = infix(self._shapes(problems), operators, count)
        end = len(self.letters) - 1
        place, size = torch.arange(self.most + 1, device=stage.device), stage[:, None] + 1
        # A place that holds neither operand nor operator is "(" before an operand, ")" after it and EOS after the end.
        # These ids are consecutive, so that a cumulative sum of marks gives them. Bytes are used, as the text is wide.
        marks = torch.zeros(len(stage), self.text_length + 1, dtype=torch.uint8, device=stage.device)
        marks.scatter_add_(1, layout.operand + count, (place <= size).byte())
        marks.scatter_add_(1, layout.after, (place == size).byte() - (place < size).byte())  # 255 is −1
        text = marks.cumsum(1, dtype=torch.uint8) + (end - 2)
        for where, token in figures(layout.operand, operands, self.digits):
            text.scatter_(1, where, token.byte())
        token = pad(operators, (0, 1)).byte() + CTX
        return text.scatter(1, layout.after, torch.where(place <= size, token, end))[:, :-1].long()

    def _texts(self, problems: ExpressionProblems) -> list[str]:
        """The infix texts, as `parse` accepts them."""
        words = dict(enumerate(self.letters)) | {CTX + code: sign for code, sign in enumerate(SIGNS)}
        text = self._text(problems).tolist()
        return ["".join(words[token] for token in row if token != len(self.letters) - 1) for row in text]

    def _shapes(self, problems: ExpressionProblems) -> trees.Shapes:
        return self.shapes(problems.shape.device)[problems.shape]
