"""Tasks and policies that several tests share, such as the task `worlds:Small`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelnative.policies.contract import PolicyOutput
from modelnative.tasks.arithmetic.problems import ArithmeticProblems
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import Problems, Split

SMALL = 40  # problems of each stage and split


class Small(Arithmetic):
    """The pocket calculator with few problems, so that all of them are played quickly."""

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[ArithmeticProblems]:
        if split == "all":
            yield from self.enumerate(stage, "train", chunk)
            yield from self.enumerate(stage, "heldout", chunk)
        else:
            numbers = self.numbers(stage, split)
            picked = numbers[torch.linspace(0, len(numbers) - 1, SMALL).long()]
            for part in picked.split(chunk):
                yield self.problems(torch.full_like(part, stage), part)

    def count(self, stage: int, split: Split = "all") -> int:
        return sum(len(problems) for problems in self.enumerate(stage, split))


@dataclass
class Script(Batch):
    """The state of `Scripted`: the program, and the number of tokens written."""

    program: Tensor
    written: Tensor


class Scripted(nn.Module):
    """Writes the oracle's program; if `a` is odd it ends with EOS, and if `a` is 8 it never ends."""

    def __init__(self, task: Arithmetic) -> None:
        super().__init__()
        self.task = task
        self.weight = nn.Parameter(torch.zeros(1))

    def initial_state(self, problems: Problems) -> Script:
        context, stage = problems.context, problems.stage
        digits = torch.where(context[:, :5] < 10, context[:, :5], 0)
        count = torch.tensor([3, 4, 5])[stage]
        number = torch.zeros_like(stage)
        for place in range(5):
            number = torch.where(place < count, number * 10 + digits[:, place], number)
        program = self.task.oracle(self.task.problems(stage, number)).clone()
        end = self.task.spec.vocabulary.index("ANS")
        answers = program == end
        program[answers & (digits[:, :1] % 2 == 1)] = self.task.spec.end
        program[digits[:, 0] == 8] = self.task.spec.vocabulary.index("STO")
        return Script(program, torch.zeros_like(stage))

    def forward(self, tokens: Tensor, feedback: Tensor, state: Script) -> PolicyOutput:
        """One token at a time."""
        next_token = state.program.gather(1, state.written[:, None])
        logits = torch.full((tokens.shape[1], len(self.task.spec.vocabulary)), -1e9).scatter(1, next_token, 0.0)
        return PolicyOutput(logits[None], torch.zeros(tokens.shape), Script(state.program, state.written + 1))

    @staticmethod
    def succeeds(operands: list[int]) -> bool:
        """Whether the policy solves the problem."""
        return operands[0] % 2 == 0 and operands[0] != 8


def calculate(actions: list[str]) -> tuple[bool, int | None]:
    """The rules of the pocket calculator in plain Python: whether ANS ended the episode, and the value at its end."""
    entry: int | None = None
    accumulator: int | None = None
    memory: int | None = None
    pending: str | None = None

    def value() -> int | None:
        if pending and accumulator is not None and entry is not None:
            return {"MUL": accumulator * entry, "ADD": accumulator + entry, "SUB": accumulator - entry}[pending]
        return entry if entry is not None else accumulator

    for place, key in enumerate(actions):
        if key.isdigit():
            entry = int(key)
        elif key in ("MUL", "ADD", "SUB") and value() is not None:
            accumulator, entry, pending = value(), None, key
        elif key == "STO" and value() is not None:
            memory = accumulator = value()
            entry = pending = None
        elif key == "RCL" and memory is not None:
            entry = memory
        elif key in ("ANS", "EOS"):
            assert place == len(actions) - 1, "nothing follows the end"
            return key == "ANS", value()
    return False, value()
