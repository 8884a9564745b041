"""All problems of Countdown, each encoded as one key, and a solution of each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modelnative.errors import choose
from modelnative.tasks.contract.task import SPLITS, Split, in_split, mixed
from modelnative.tasks.countdown.solver import solve

LEAST, MOST = 3, 6  # numbers of a problem
CHOICES = {3: 8192, 4: 8192, 5: 2048, 6: 1024}  # largest number of multisets; if there are more, a sample is used
VALUE, NUMBER, SLOT = 10, 7, 3  # bits of a target or result, of a number in a key, of a slot
OPERATION = 2 * SLOT + 2  # bits of an operation: first slot, operator, second slot
SOLVED = 64  # multisets that are solved at once


class TargetSpace:
    """The problems of all stages; stage 0 has `LEAST` numbers. See `Countdown` for the arguments.

    The lowest `VALUE` bits of a key are the target, followed by the numbers in ascending order, `NUMBER` bits each. A
    solution is the list of operations of one expression, `OPERATION` bits each. Slot i holds number i; an operation
    puts its result into the lower of its two slots.
    """

    def __init__(self, numbers: int, largest: int, targets: int, operators: str, solutions: int) -> None:
        self.numbers, self.largest, self.targets = numbers, largest, targets
        self.operators, self.solutions = operators, solutions
        self._all: dict[int, Tensor] = {}

    def part(self, stage: int, split: Split) -> Tensor:
        """Return the problems of a stage and split: key and solution, int64 [size, 2], with keys in ascending order."""
        choose("split", split, SPLITS)
        if stage not in self._all:
            solved = [self._solved(numbers) for numbers in self._choices(stage + LEAST).split(SOLVED)]
            problems = torch.cat(solved)
            self._all[stage] = problems[problems[:, 0].argsort()]
        problems = self._all[stage]
        return problems[in_split(problems[:, 0], split)]

    def find(self, stage: int, numbers: list[int], target: int) -> Tensor:
        """Return the key and the solution of one problem, int64 [1, 2]; no row if there is no such problem."""
        problems = self.part(stage, "all")
        key = sum(number << NUMBER * i for i, number in enumerate(sorted(numbers))) << VALUE | target
        return problems[(problems[:, 0] == key) & (target < 1 << VALUE)]

    def _choices(self, count: int) -> Tensor:
        """The numbers of the problems: int64 [multisets, count], ascending."""
        if math.comb(self.largest + count - 1, count) <= CHOICES[count]:
            return torch.combinations(torch.arange(1, self.largest + 1), count, with_replacement=True)
        # The sample comes from a hash, so that it is the same for all seeds.
        draws = mixed(torch.arange(CHOICES[count] * count).view(-1, count)) % self.largest
        return (draws + 1).sort(1).values.unique(dim=0)

    def _solved(self, numbers: Tensor) -> Tensor:
        """The keys and solutions, int64 [m, 2], of all problems with given numbers, int64 [n, count]."""
        reached = solve(numbers, self.operators)
        ways = reached.ways.scatter(1, numbers, 0)[:, : self.targets + 1]
        row, target = ((ways > 0) & (ways <= self.solutions)).nonzero(as_tuple=True)
        count = numbers.shape[1]
        key = (numbers << NUMBER * torch.arange(count)).sum(1)[row] << VALUE | target
        # An operand is the index of a number, or of a result after all numbers.
        slots, solution = torch.arange(count).repeat(len(key), 1), torch.zeros_like(key)
        for k, (left, operator, right) in enumerate(reached.programs(row, target).permute(1, 2, 0)):
            both = slots.gather(1, torch.stack([left, right], 1))
            first, second = both.amin(1), both.amax(1)
            slots = torch.cat([slots, first[:, None]], 1)
            solution += (first + (operator << SLOT) + (second << SLOT + 2)) << OPERATION * k
        return torch.stack([key, solution], 1)
