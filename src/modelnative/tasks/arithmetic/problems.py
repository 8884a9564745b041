"""Problems with decimal operands, shared by `arithmetic` and `tutorial`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.sampling import StageTables
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import Problems, S, Split, Task, in_split

OPERANDS = "abcde"
STRIDE = 10**6  # difference between the first keys of two stages
FORMULAS = ("a*b + c", "(a*b + c) - d", "(a*b + c) - d*e")  # the target of each stage


@dataclass
class ArithmeticProblems(Problems):
    """Adds `operands`, int64 [n, 5] (a to e; 0 for those that a stage does not have), and `target`, int64 [n]."""

    operands: Tensor
    target: Tensor


class OperandSpace:
    """All choices of `counts[stage]` operands from 0 to 9, numbered by their digits: 37245 is a=3, b=7, c=2, d=4, e=5.

    Args:
        counts: number of operands of each of the three stages, 3 to 5.
        mark: the token after the operands in a context.
        pad: the token that pads a context.

    Example:
        >>> space = OperandSpace((3, 4, 5), mark=10, pad=17)
        >>> problems = space.parse(1, "3 7 2 4")
        >>> problems.context.tolist(), problems.target.tolist()
        ([[3, 7, 2, 4, 10, 17]], [19])
    """

    def __init__(self, counts: tuple[int, int, int], mark: int, pad: int) -> None:
        self.counts = counts
        self.mark = mark
        self.pad = pad
        self._numbers: dict[tuple[int, Split], Tensor] = {}
        self.tables = StageTables([f"T{stage}" for stage in range(len(counts))], self.numbers)
        self.rows = PerDevice(lambda device: self._all_rows().to(device))

    def numbers(self, stage: int, split: Split) -> Tensor:
        """Return the numbers of all problems of a stage and split: int64, ascending."""
        if (stage, split) not in self._numbers:
            numbers = torch.arange(10 ** self.counts[stage])
            self._numbers[stage, split] = numbers[in_split(_key(torch.tensor(stage), numbers), split)]
        return self._numbers[stage, split]

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split) -> ArithmeticProblems:
        """See `Task.sample`."""
        return self.problems(stage, self.tables.draw(stage, generator, split))

    def enumerate(self, stage: int, split: Split, chunk: int) -> Iterator[ArithmeticProblems]:
        """See `Task.enumerate`."""
        for numbers in self.numbers(stage, split).split(chunk):
            yield self.problems(torch.full_like(numbers, stage), numbers)

    def parse(self, stage: int, text: str) -> ArithmeticProblems:
        """See `Task.parse`."""
        words = text.replace(",", " ").split()
        count = self.counts[stage]
        if len(words) != count or not all(word.isascii() and word.isdigit() and len(word) == 1 for word in words):
            raise UserError(
                f"problem: {text!r} is not allowed; expected {count} operands from 0 to 9 for stage T{stage}, "
                f"such as {' '.join('37245'[:count])!r}"
            )
        return self.problems(torch.tensor([stage]), torch.tensor([int("".join(words))]))

    def render(self, problems: ArithmeticProblems, i: int) -> str:
        """See `Task.render`."""
        stage = int(problems.stage[i])
        values = problems.operands[i, : self.counts[stage]].tolist()
        given = " ".join(f"{name}={value}" for name, value in zip(OPERANDS, values, strict=False))
        return f"{given}; compute {FORMULAS[stage]}"

    def records(self, problems: ArithmeticProblems, value: Tensor, answered: Tensor) -> list[dict[str, Any]]:
        """See `Task.records`; `value`, int64 [n], is the answer where `answered`, bool [n], is true."""
        columns = (problems.stage, problems.operands, problems.target, value, answered)
        records = []
        for stage, operands, target, answer, given in zip(*(c.tolist() for c in columns), strict=True):
            own = operands[: self.counts[stage]]
            problem, answer = " ".join(map(str, own)), answer if given else None
            records.append({"problem": problem, "operands": own, "answer": answer, "target": target})
        return records

    def problems(self, stage: Tensor, number: Tensor) -> ArithmeticProblems:
        """Return the problems with given stages and numbers, both int64 [n]."""
        rows = self.rows(stage.device)
        row = number + rows.first.index_select(0, stage)
        found = rows.content.index_select(0, row).long()
        context, operands, target = found.split([len(OPERANDS) + 1, len(OPERANDS), 1], 1)
        return ArithmeticProblems(stage, context, _key(stage, number), operands, target[:, 0])

    def recall(self, key: Tensor) -> ArithmeticProblems:
        """Return the problems with given keys, int64 [n]."""
        return self.problems(key // STRIDE, key % STRIDE)

    def _all_rows(self) -> OperandRows:
        sizes = torch.tensor([10**count for count in self.counts])
        stage = torch.arange(len(sizes)).repeat_interleave(sizes)
        first = sizes.cumsum(0) - sizes
        number = torch.arange(len(stage)) - first[stage]
        count = torch.tensor(self.counts)[stage]
        places = torch.arange(len(OPERANDS))
        power = (count[:, None] - 1 - places).clamp_min(0)
        given = places < count[:, None]
        operands = torch.where(given, number[:, None] // 10**power % 10, 0)
        a, b, c, d, e = operands.unbind(1)
        target = a * b + c - torch.where(stage == 2, d * e, torch.where(stage == 1, d, 0))
        context = torch.full((len(stage), len(OPERANDS) + 1), self.pad)
        context[:, :-1] = torch.where(given, operands, self.pad)
        context = context.scatter(1, count[:, None], self.mark)
        return OperandRows(first, torch.cat([context, operands, target[:, None]], 1).to(torch.int16))


@dataclass
class OperandRows(Batch):
    """All problems, stage after stage, in few bytes so that they fit the processor's cache.

    Attributes:
        first: int64 [stages], the first row of each stage.
        content: int16 [rows, 12], context, operands and target.
    """

    first: Tensor
    content: Tensor


def _key(stage: Tensor, number: Tensor) -> Tensor:
    return number + stage * STRIDE


class OperandTask(Task[ArithmeticProblems, S]):
    """A task whose problems are those of an `OperandSpace`."""

    space: OperandSpace

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        return self.space.sample(stage, generator, split)

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ArithmeticProblems]:
        return self.space.enumerate(stage, split, chunk)

    def count(self, stage: int, split: Split = "all") -> int:
        return len(self.space.numbers(stage, split))

    def parse(self, stage: int, text: str) -> ArithmeticProblems:
        return self.space.parse(stage, text)

    def render(self, problems: ArithmeticProblems, i: int) -> str:
        return self.space.render(problems, i)
