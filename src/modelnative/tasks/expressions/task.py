"""Infix expressions on a calculator: which operand first, and what to keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.errors import UserError, choose
from modelnative.tasks.calculator import CTX, LIMIT, PocketCalculator
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.sampling import TRIES, content_key
from modelnative.tasks.contract.task import Problems, Split, State, Step, Task, TaskSpec, in_split, require
from modelnative.tasks.expressions import trees
from modelnative.tasks.expressions.infix import figures, infix, read, widths
from modelnative.tasks.expressions.interfaces import Desk, Paper, Pocket

LISTED = 1_000_000  # problems of a stage that `enumerate` still lists
REDRAWN = 2048  # trees at a time, for the problems that are still missing
CELLS = 4  # the most memories
FIGURES = 3  # the most digits of an operand
SIGNS = ("", "*", "+", "-")  # of the operator codes


@dataclass
class ExpressionProblems(Problems):
    """Adds the tree that the context writes down; N is the most operators.

    Attributes:
        shape: int64 [n], the tree's number in `trees.all_shapes`, which does not depend on its operators.
        operators: int64 [n, N], in reading order: 1 MUL, 2 ADD, 3 SUB; 0 after the last.
        operands: int64 [n, N + 1], in reading order; 0 after the last.
        target: int64 [n], its value.
    """

    shape: Tensor
    operators: Tensor
    operands: Tensor
    target: Tensor


@dataclass
class Evaluation(State):
    """Adds `target`, int64 [n], and the state of the `desk`."""

    target: Tensor
    desk: Any


@dataclass
class Drawn(Batch):
    """Trees that are being drawn: as in the problems, and whether they are admitted, `fits`: bool [n]."""

    shape: Tensor
    operators: Tensor
    operands: Tensor
    key: Tensor
    target: Tensor
    fits: Tensor


class Expressions(Task[ExpressionProblems, Evaluation]):
    """Evaluate the infix expression in the context on the pocket calculator (`calculator`), with K memory cells.

    Or, with `feedback="paper"`, one that stands on paper (`paper`): it is read through a window, three numbers wide,
    and grows shorter as it is worked out. Then a decision needs but a glance, whatever the expression's length.

    Stage En has n operators, each +, − or × alike, over operands from 1 on (a 0 would make 0 a frequent answer). Every
    shape of tree is as frequent as any other of its size. Left out are trees that need too many cells, and those with a
    subtree whose value does not fit the display; their operators and operands are drawn anew, their shape stays.
    The text has as few brackets as keep the shape (`infix`), a token for each digit, sign and bracket, then CTX. The
    oracle is the shortest program that evaluates the tree as it stands (`schedule`); one that rearranges the terms may
    be shorter. On paper it is a short one, not always the shortest (`paper_schedule`).

    No key knows an operand, so that the best constant program answers with the most frequent target: it is right on
    4.9% of E1, 3.2% of E2, 2.8% of E3, 2.0% of E5 and 1.0% of E12. On paper it need only guess the operators, and is
    right on 34% of E1, and on at least 13% of E2 and 1% of E5. Pressing the keys in reading order, brackets and
    precedence aside, is right on 69% of E2, 43% of E3, 15% of E5 and 0.3% of E12. Without a cell the trees can be
    evaluated, as they stand, on 83% of E2, 56% of E3, 18% of E5 and 0.1% of E12.

    Args:
        operators: the last stage's, 1 to 12.
        memories: K, 1 to 4. On paper also 0: a cell, and one more for every three operators.
        needs: trees that cannot be evaluated with so many cells are left out; at least 1, more than K counts as K.
        digits: the most that an operand has, 1 to 3.
        shapes: one shape in five of each size is `unseen`, by a hash, the others `seen`; `all` are both. E1 and E2 have
            too few shapes to leave one out: `seen` and `unseen` have them all.
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
        self.desk: Desk = Paper(operators, memories) if on_paper else Pocket(machine, operators, feedback != "none")
        # The longest text has all brackets but the root's.
        self.text_length = 4 * operators + (digits - 1) * (operators + 1)
        self._tables: dict[torch.device, Tables] = {}
        self.spec = TaskSpec(
            name="expressions",
            vocabulary=self.desk.vocabulary,
            stages=tuple(f"E{n}" for n in range(1, operators + 1)),
            context_length=self.text_length if self.desk.reads else 1,
            feedback_width=self.desk.width,
            horizon=self.desk.horizon,
            start=self.desk.start,
            end=len(self.desk.vocabulary) - 1,
        )

    def options(self) -> dict[str, Any]:
        return {**self.chosen, "shapes": self.choice, "feedback": self.shown}

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ExpressionProblems:
        tables = self.tables(stage.device)
        unit = torch.rand(stage.shape, generator=generator, device=stage.device, dtype=torch.float64)
        place = (unit * tables.count.index_select(0, stage)).long() + tables.first.index_select(0, stage)
        drawn = self._draw(tables.chosen.index_select(0, place), stage, generator, split)
        for _ in range(TRIES):
            again = (~drawn.fits).nonzero()[:, 0]
            if not len(again):
                return self._problems(stage, drawn)
            # The fewer rows are left the more often each is drawn, and its first draw that fits is taken.
            times = max(1, REDRAWN // len(again))
            rows = again.repeat_interleave(times)
            more = self._draw(drawn.shape.index_select(0, rows), stage.index_select(0, rows), generator, split)
            first = more.fits.view(-1, times).byte().argmax(1)
            best = torch.arange(0, len(rows), times, device=rows.device) + first
            drawn = drawn.put(again, more[best])
        shape = int(drawn.shape[again[0]])
        raise UserError(f"split: {split!r} has no problem of shape {shape}, or hardly any; it needs more")

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ExpressionProblems]:
        name, n, high = self.spec.stages[stage], stage + 1, 10**self.digits - 1
        tables = self.tables(torch.device("cpu"))
        first, count = int(tables.first[stage]), int(tables.count[stage])
        total = count * 3**n * high ** (n + 1)
        if total > LISTED:
            raise UserError(f"stage: {name!r} is not allowed; too many to list: {total:,} problems, at most {LISTED:,}")
        return self._listed(stage, split, chunk, tables.chosen[first : first + count], total)

    def _listed(self, stage: int, split: Split, chunk: int, shapes: Tensor, total: int) -> Iterator[ExpressionProblems]:
        n, high = stage + 1, 10**self.digits - 1
        for number in torch.arange(total).split(chunk):
            # The operands count fastest, the last of them first; then the operators, then the shape.
            operands = number[:, None] // high ** torch.arange(n, -1, -1) % high + 1
            rest = number // high ** (n + 1)
            operators = rest[:, None] // 3 ** torch.arange(n - 1, -1, -1) % 3 + 1
            missing = (0, self.most - n)
            drawn = self._judged(shapes[rest // 3**n], pad(operators, missing), pad(operands, missing), split)
            kept = drawn.fits.nonzero()[:, 0]
            if len(kept):
                yield self._problems(torch.full_like(kept, stage), drawn[kept])

    def parse(self, stage: int, text: str) -> ExpressionProblems:
        n, high = stage + 1, 10**self.digits - 1
        expected = f"{n} operator{'s' * (n > 1)} out of + - * for stage {self.spec.stages[stage]}, operands from 1 to "
        expected += f"{high} and brackets, such as {'+'.join('3724512345678'[: n + 1])!r}"
        try:
            tree = read(text)
        except ValueError as error:
            raise UserError(f"problem: {text!r} is not allowed; expected {expected}") from error
        right = len(tree.operators) == n and all(1 <= operand <= high for operand in tree.operands)
        require(right, "problem", text, expected)
        missing = self.most - n
        operators, operands = (pad(torch.tensor([row]), (0, missing)) for row in (tree.operators, tree.operands))
        drawn = self._judged(torch.tensor([trees.shape_number(tree.splits)]), operators, operands, "all")
        allowed = f"values under {LIMIT:,} all along, and a tree that {self.needs} memory cells are enough for"
        require(bool(drawn.fits.all()), "problem", text, allowed)
        return self._problems(torch.tensor([stage]), drawn)

    def render(self, problems: ExpressionProblems, i: int) -> str:
        return f"compute {self._texts(problems[i : i + 1])[0]}"

    def records(self, problems: ExpressionProblems, state: Evaluation) -> list[dict[str, Any]]:
        columns = (problems.stage, problems.operators, problems.operands, problems.shape, problems.target)
        answers = self.desk.answer(state.desk)
        rows = zip(self._texts(problems), *(column.tolist() for column in (*columns, *answers)), strict=True)
        return [
            {
                "problem": text,
                "operators": [SIGNS[code] for code in operators[: stage + 1]],
                "operands": operands[: stage + 2],
                "shape": shape,
                "answer": value if given else None,
                "target": target,
            }
            for text, stage, operators, operands, shape, target, value, given in rows
        ]

    def needed(self, problems: ExpressionProblems) -> Tensor:
        """The fewest memory cells that each tree can be evaluated with, its Ershov number here: int64 [n]."""
        return trees.cells_needed(self._shapes(problems), problems.operators)

    def oracle(self, problems: ExpressionProblems) -> Tensor:
        return self.desk.program(self._shapes(problems), problems.operators, problems.operands)

    # Episodes

    def begin(self, problems: ExpressionProblems) -> Evaluation:
        desk = self.desk.begin(self._shapes(problems), problems.operators, problems.operands)
        return Evaluation(torch.zeros_like(problems.stage, dtype=torch.bool), problems.target, desk)

    def step(self, state: Evaluation, action: Tensor) -> Step[Evaluation]:
        desk, invalid = self.desk.press(state.desk, action)
        after = Evaluation(self.desk.over(desk), state.target, desk)
        value, given = self.desk.answer(desk)
        success = given & ~state.done & (value == state.target)
        return Step(after, self.feedback(after), success.float(), after.done, success, invalid)

    def feedback(self, state: Evaluation) -> Tensor:
        return self.desk.show(state.desk)

    def registers(self, state: Evaluation, i: int) -> dict[str, str]:
        return self.desk.describe(state.desk, i)

    # Tables and batches of trees

    def tables(self, device: torch.device) -> Tables:
        """The shapes, on `device`."""
        if device not in self._tables:
            chosen = trees.chosen(self.most, self.needs, self.choice)
            count = torch.tensor([len(part) for part in chosen])
            columns = (torch.cat(chosen), count.cumsum(0) - count, count)
            self._tables[device] = Tables(trees.all_shapes(self.most).to(device), *(c.to(device) for c in columns))
        return self._tables[device]

    def _draw(self, shape: Tensor, stage: Tensor, generator: torch.Generator, split: Split) -> Drawn:
        """Trees of these shapes, int64 [n]; those outside the split are not admitted either."""
        n, device = len(shape), shape.device
        place, size = torch.arange(self.most + 1, device=device), stage[:, None] + 1
        operators = torch.randint(1, 4, (n, self.most), generator=generator, device=device)
        operands = torch.randint(1, 10**self.digits, (n, self.most + 1), generator=generator, device=device)
        return self._judged(shape, operators * (place[:-1] < size), operands * (place <= size), split)

    def _judged(self, shape: Tensor, operators: Tensor, operands: Tensor, split: Split) -> Drawn:
        """These trees with their keys and targets, and whether they are admitted."""
        shapes = self.tables(shape.device).shapes
        order, low = shapes.order.index_select(0, shape).long(), shapes.low.index_select(0, shape).long()
        target, fits = trees.evaluated(order, low, operators, operands, LIMIT)
        # Most shapes need few cells whatever their operators are.
        tight = (shapes.largest.index_select(0, shape) > self.needs).nonzero()[:, 0]
        if len(tight):
            rows = shapes[shape.index_select(0, tight)]
            needed = trees.cells_needed(rows, operators.index_select(0, tight))
            fits = fits.index_copy(0, tight, fits.index_select(0, tight) & (needed <= self.needs))
        key = self._key(shape, operators, operands)
        return Drawn(shape, operators, operands, key, target, fits & in_split(key, split))

    def _key(self, shape: Tensor, operators: Tensor, operands: Tensor) -> Tensor:
        """The canonical key: int64 [n]."""
        powers = 4 ** torch.arange(self.most, device=shape.device)
        content = [shape * 4**self.most + (operators * powers).sum(1)]
        for part in operands.split(18 // self.digits, 1):  # as many as go into a word
            powers = 10 ** (self.digits * torch.arange(part.shape[1], device=shape.device))
            content.append((part * powers).sum(1))
        return content_key(torch.stack(content, 1))

    def _problems(self, stage: Tensor, drawn: Drawn) -> ExpressionProblems:
        start = torch.full_like(stage, self.spec.start)[:, None]
        context = self._text(stage, drawn.shape, drawn.operators, drawn.operands) if self.desk.reads else start
        return ExpressionProblems(stage, context, drawn.key, drawn.shape, drawn.operators, drawn.operands, drawn.target)

    def _text(self, stage: Tensor, shape: Tensor, operators: Tensor, operands: Tensor) -> Tensor:
        """The texts, in `letters`: int64 [n, text_length]."""
        count = widths(operands, self.digits)
        layout = infix(self.tables(stage.device).shapes[shape], operators, count)
        end = len(self.letters) - 1
        place, size = torch.arange(self.most + 1, device=stage.device), stage[:, None] + 1
        # What is neither operand nor operator is "(", after an operand ")", and after CTX EOS: their ids follow each
        # other. So the marks add up to 0, 1 or 2; in bytes, the text being the widest tensor here.
        marks = torch.zeros(len(stage), self.text_length + 1, dtype=torch.uint8, device=stage.device)
        marks.scatter_add_(1, layout.operand + count, (place <= size).byte())
        marks.scatter_add_(1, layout.after, (place == size).byte() - (place < size).byte())  # 255 takes 1 away
        text = marks.cumsum(1, dtype=torch.uint8) + (end - 2)
        for where, token in figures(layout.operand, operands, self.digits):
            text.scatter_(1, where, token.byte())
        token = pad(operators, (0, 1)).byte() + CTX
        return text.scatter(1, layout.after, torch.where(place <= size, token, end))[:, :-1].long()

    def _texts(self, problems: ExpressionProblems) -> list[str]:
        """The infix texts, as `parse` reads them."""
        words = dict(enumerate(self.letters)) | {CTX + code: sign for code, sign in enumerate(SIGNS)}
        text = self._text(problems.stage, problems.shape, problems.operators, problems.operands)
        return ["".join(words[token] for token in row if token != len(self.letters) - 1) for row in text.tolist()]

    def _shapes(self, problems: ExpressionProblems) -> trees.Shapes:
        return self.tables(problems.shape.device).shapes[problems.shape]


@dataclass
class Tables:
    """The shapes that a task draws from.

    Attributes:
        shapes: all, by number.
        chosen: int64, the numbers of those that are drawn, stage after stage.
        first, count: int64 [stages], where in `chosen` a stage begins, and how many shapes it has.
    """

    shapes: trees.Shapes
    chosen: Tensor
    first: Tensor
    count: Tensor
