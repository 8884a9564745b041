"""Problems made of decimal operands: what `arithmetic` and `tutorial` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.task import Problems, S, Split, Task, in_split

OPERANDS = "abcde"
STRIDE = 10**6  # between the keys of two stages
FORMULAS = ("a*b + c", "(a*b + c) - d", "(a*b + c) - d*e")  # the declared target of each stage


@dataclass
class ArithmeticProblems(Problems):
    """Adds `operands`: int64 [n, 5] (a to e; those that a stage lacks are 0) and `target`: int64 [n]."""

    operands: Tensor
    target: Tensor


class OperandSpace:
    """Every choice of `counts[stage]` operands from 0 to 9, read as one decimal number: 37245 is a=3, b=7 and so on.

    Args:
        counts: operands of each of the three stages, 3 to 5.
        mark: the token that closes a context.
        pad: the token that fills it up.

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
        self._tables: dict[tuple[Split, torch.device], tuple[Tensor, Tensor]] = {}
        self._rows: dict[torch.device, _Rows] = {}

    def numbers(self, stage: int, split: Split) -> Tensor:
        """The numbers of every problem of a stage and split: int64, ascending."""
        if (stage, split) not in self._numbers:
            numbers = torch.arange(10 ** self.counts[stage])
            self._numbers[stage, split] = numbers[in_split(_key(torch.tensor(stage), numbers), split)]
        return self._numbers[stage, split]

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split) -> ArithmeticProblems:
        """As `Task.sample`."""
        if (split, stage.device) not in self._tables:
            parts = [self.numbers(s, split) for s in range(len(self.counts))]
            sizes = torch.tensor([len(part) for part in parts])
            self._tables[split, stage.device] = (torch.cat(parts).to(stage.device), sizes.to(stage.device))
        table, sizes = self._tables[split, stage.device]
        starts = sizes.cumsum(0) - sizes
        unit = torch.rand(stage.shape, generator=generator, device=stage.device, dtype=torch.float64)
        place = (unit * sizes.index_select(0, stage)).long() + starts.index_select(0, stage)
        return self.problems(stage, table.index_select(0, place))

    def enumerate(self, stage: int, split: Split, chunk: int) -> Iterator[ArithmeticProblems]:
        """As `Task.enumerate`."""
        for numbers in self.numbers(stage, split).split(chunk):
            yield self.problems(torch.full_like(numbers, stage), numbers)

    def parse(self, stage: int, text: str) -> ArithmeticProblems:
        """As `Task.parse`."""
        words = text.replace(",", " ").split()
        count = self.counts[stage]
        if len(words) != count or not all(word.isascii() and word.isdigit() and len(word) == 1 for word in words):
            raise UserError(
                f"problem: {text!r} is not allowed; expected {count} operands from 0 to 9 for stage T{stage}, "
                f"such as {' '.join('37245'[:count])!r}"
            )
        return self.problems(torch.tensor([stage]), torch.tensor([int("".join(words))]))

    def render(self, problems: ArithmeticProblems, i: int) -> str:
        """As `Task.render`."""
        stage = int(problems.stage[i])
        values = problems.operands[i, : self.counts[stage]].tolist()
        given = " ".join(f"{name}={value}" for name, value in zip(OPERANDS, values, strict=False))
        return f"{given}; compute {FORMULAS[stage]}"

    def records(self, problems: ArithmeticProblems, value: Tensor, answered: Tensor) -> list[dict[str, Any]]:
        """As `Task.records`, from the value that stands (int64 [n]) and whether it is the answer (bool [n])."""
        columns = (problems.stage, problems.operands, problems.target, value, answered)
        records = []
        for stage, operands, target, answer, given in zip(*(c.tolist() for c in columns), strict=True):
            own = operands[: self.counts[stage]]
            problem, answer = " ".join(map(str, own)), answer if given else None
            records.append({"problem": problem, "operands": own, "answer": answer, "target": target})
        return records

    def problems(self, stage: Tensor, number: Tensor) -> ArithmeticProblems:
        """Problems from stages and numbers, both int64 [n]."""
        if stage.device not in self._rows:
            self._rows[stage.device] = self._all().to(stage.device)
        rows = self._rows[stage.device]
        row = number + rows.first.index_select(0, stage)
        found = rows.content.index_select(0, row).long()
        context, operands, target = found.split([len(OPERANDS) + 1, len(OPERANDS), 1], 1)
        return ArithmeticProblems(stage, context, _key(stage, number), operands, target[:, 0])

    def recall(self, key: Tensor) -> ArithmeticProblems:
        """The problems with these keys, int64 [n]."""
        return self.problems(key // STRIDE, key % STRIDE)

    def _all(self) -> _Rows:
        """Every problem of every stage."""
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
        return _Rows(first, torch.cat([context, operands, target[:, None]], 1).to(torch.int16))


@dataclass
class _Rows:
    """Every problem, stage after stage, in few bytes so that they stay in the cache.

    Attributes:
        first: int64 [stages], the row where a stage begins.
        content: int16 [*, 12], context, operands and target side by side.
    """

    first: Tensor
    content: Tensor

    def to(self, device: torch.device) -> _Rows:
        return _Rows(self.first.to(device), self.content.to(device))


def _key(stage: Tensor, number: Tensor) -> Tensor:
    return number + stage * STRIDE


class OperandTask(Task[ArithmeticProblems, S]):
    """A task whose problems are an `OperandSpace`."""

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
