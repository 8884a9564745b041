"""Problems with decimal operands, shared by `arithmetic` and `tutorial`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.calls import Call, press_call
from modelnative.tasks.contract.sampling import NumberedTask, StageTables
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import Problems, S, Split, TaskSpec, in_split, require

OPERANDS = "abcde"
CTX, MUL, ADD, SUB, ANS, STO, RCL, EOS = range(10, 18)
VOCABULARY = (*"0123456789", "CTX", "MUL", "ADD", "SUB", "ANS", "STO", "RCL", "EOS")
STAGES = ("T0", "T1", "T2")
STRIDE = 10**6  # difference between the first keys of two stages
KEYS = tuple(key for key in VOCABULARY if key != "CTX")  # that are worth pressing
FORMULAS = ("a*b + c", "(a*b + c) - d", "(a*b + c) - d*e")  # the target of each stage


@dataclass
class ArithmeticProblems(Problems):
    """Adds `operands`, int64 [n, 5] (a to e; 0 for those that a stage does not have), and `target`, int64 [n]."""

    operands: Tensor
    target: Tensor


class OperandTask(NumberedTask[ArithmeticProblems, S]):
    """A task whose problems are all choices of `counts[stage]` operands from 0 to 9.

    The number of a problem has the operands as its digits: 37245 is a=3, b=7, c=2, d=4, e=5.

    Args:
        name, horizon, feedback_width, solvable: see `TaskSpec`.
        counts: number of operands of each of the three stages, 3 to 5.
    """

    def __init__(
        self,
        name: str,
        counts: tuple[int, int, int],
        horizon: int,
        feedback_width: int = 0,
        solvable: tuple[bool, ...] = (),
    ) -> None:
        self.counts = counts
        self.tables = StageTables(STAGES, self.numbers)
        self.rows = PerDevice(lambda device: _operand_rows(counts).to(device))
        self.spec = TaskSpec(
            name=name,
            vocabulary=VOCABULARY,
            stages=STAGES,
            context_length=len(OPERANDS) + 1,
            feedback_width=feedback_width,
            horizon=horizon,
            start=CTX,
            end=EOS,
            positions=tuple(OPERANDS),
            solvable=solvable,
        )

    def numbers(self, stage: int, split: Split) -> Tensor:
        numbers = torch.arange(10 ** self.counts[stage])
        return numbers[in_split(numbers + stage * STRIDE, split)]

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> ArithmeticProblems:
        return self.problems(stage, self.tables.draw(stage, generator, split))

    def problems(self, stage: Tensor, numbers: Tensor) -> ArithmeticProblems:
        rows = self.rows(stage.device)
        row = numbers + rows.first.index_select(0, stage)
        found = rows.content.index_select(0, row).long()
        context, operands, target = found.split([len(OPERANDS) + 1, len(OPERANDS), 1], 1)
        return ArithmeticProblems(stage, context, numbers + stage * STRIDE, operands, target[:, 0])

    def vary(self, problems: ArithmeticProblems, generator: torch.Generator) -> ArithmeticProblems:
        """One operand is another digit."""
        stage, device = problems.stage, problems.stage.device
        count = torch.tensor(self.counts, device=device).index_select(0, stage)
        chance = torch.rand(2, len(stage), generator=generator, device=device)
        power = 10 ** (chance[0] * count).long()
        numbers = problems.key % STRIDE
        digit = numbers // power % 10
        other = (digit + 1 + (chance[1] * 9).long()) % 10
        return self.problems(stage, numbers + (other - digit) * power)

    def recall(self, key: Tensor) -> ArithmeticProblems:
        """Return the problems with given keys, int64 [n]."""
        return self.problems(key // STRIDE, key % STRIDE)

    def parse(self, stage: int, text: str) -> ArithmeticProblems:
        words = text.replace(",", " ").split()
        count = self.counts[stage]
        digits = len(words) == count and all(word.isascii() and word.isdigit() and len(word) == 1 for word in words)
        example = " ".join("37245"[:count])
        allowed = f"{count} operands from 0 to 9 for stage {STAGES[stage]}, such as {example!r}"
        require(digits, "problem", text, allowed)
        return self.problems(torch.tensor([stage]), torch.tensor([int("".join(words))]))

    def render(self, problems: ArithmeticProblems, i: int) -> str:
        stage = int(problems.stage[i])
        values = problems.operands[i, : self.counts[stage]].tolist()
        given = " ".join(f"{name}={value}" for name, value in zip(OPERANDS, values, strict=False))
        return f"{given}; compute {FORMULAS[stage]}"

    def prompt(self, problems: ArithmeticProblems, i: int) -> str:
        digits = [token for token in problems.context[i].tolist() if token < CTX]
        given = " ".join(f"{name}={digit}" for name, digit in zip(OPERANDS, digits, strict=False))
        return f"{given}. Compute {FORMULAS[int(problems.stage[i])]}."

    def calls(self) -> list[Call]:
        return [press_call(self.spec.vocabulary, ("3", "MUL", "7"), KEYS)]

    def answer_records(self, problems: ArithmeticProblems, value: Tensor, answered: Tensor) -> list[dict[str, Any]]:
        """See `Task.records`; `value`, int64 [n], is the answer where `answered`, bool [n], is true."""
        columns = (problems.stage, problems.operands, problems.target, value, answered)
        records = []
        for stage, operands, target, answer, given in zip(*(c.tolist() for c in columns), strict=True):
            own = operands[: self.counts[stage]]
            problem, answer = " ".join(map(str, own)), answer if given else None
            records.append({"problem": problem, "operands": own, "answer": answer, "target": target})
        return records


@dataclass
class OperandRows(Batch):
    """All problems, stage after stage, in few bytes so that they fit the processor's cache.

    Attributes:
        first: int64 [stages], the first row of each stage.
        content: int16 [rows, 12], context, operands and target.
    """

    first: Tensor
    content: Tensor


def _operand_rows(counts: tuple[int, ...]) -> OperandRows:
    sizes = torch.tensor([10**count for count in counts])
    stage = torch.arange(len(sizes)).repeat_interleave(sizes)
    first = sizes.cumsum(0) - sizes
    number = torch.arange(len(stage)) - first[stage]
    count = torch.tensor(counts)[stage]
    places = torch.arange(len(OPERANDS))
    power = (count[:, None] - 1 - places).clamp_min(0)
    given = places < count[:, None]
    operands = torch.where(given, number[:, None] // 10**power % 10, 0)
    a, b, c, d, e = operands.unbind(1)
    target = a * b + c - torch.where(stage == 2, d * e, torch.where(stage == 1, d, 0))
    context = pad(torch.where(given, operands, EOS), (0, 1), value=EOS).scatter(1, count[:, None], CTX)
    return OperandRows(first, torch.cat([context, operands, target[:, None]], 1).to(torch.int16))
