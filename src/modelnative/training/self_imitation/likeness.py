"""Which problems are alike for a procedure, and whether it solves them too."""

from __future__ import annotations

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.discovery.procedures import Symbols, hash_weights, lengths, write_programs

SAMPLE = 128  # problems that are alike, at most, on which a procedure is tried
FEW = 4  # that are tried first
SURE = 1000  # support is in thousandths


class Likeness:
    """Tells procedures that are right for problems of a kind from those that were right once, by coincidence.

    A procedure copies from some places of the context. Two problems are alike for it if all other places hold the same:
    for `{a} MUL {b} ANS` copied from `3*4`, all products of two digits. A procedure that is right solves those, too;
    one that came upon the number 12 in another way does not. For a procedure that copies nothing, all problems are
    alike.

    Args:
        task: answers.
        problems: of one stage, distinct.

    Attributes:
        steps: actions played so far.
    """

    def __init__(self, task: AnyTask, problems: Problems) -> None:
        self.task, self.problems, self.symbols, self.steps = task, problems, Symbols(task.spec), 0
        self.weights = hash_weights(problems.context.shape[1])
        self.terms = (problems.context * self.weights).t().contiguous()  # int64 [C, P], of each place
        self.total = self.terms.sum(0)

    def alike(self, procedure: Tensor, context: Tensor) -> Tensor:
        """The problems that are like one for a procedure: bool [P].

        Args:
            procedure: int64 [horizon].
            context: int64 [C], of the one.
        """
        place = procedure - self.symbols.tokens
        copied = place[(place >= 0) & (place < len(self.terms))].unique()
        if not len(copied):
            return torch.ones_like(self.total, dtype=torch.bool)
        left = (context * self.weights).sum() - (context * self.weights)[copied].sum()
        return self.total - self.terms[copied].sum(0) == left

    def others(self, procedure: Tensor, problem: Problems) -> Tensor:
        """The other problems that are alike: int64 [m], their rows."""
        alike = self.alike(procedure, problem.context[0])
        return (alike & (self.problems.key != problem.key)).nonzero()[:, 0]

    def support(self, procedures: Tensor, problems: Problems) -> tuple[Tensor, Tensor]:
        """How surely each procedure solves problems like one that it solved.

        Args:
            procedures: int64 [n, horizon].
            problems: n of them.

        Returns:
            (s + 1) / (m + 2) in thousandths, where it solves s of m other problems that are alike, int64 [n]; and
            whether its success must be taken for a coincidence, bool [n]: it does not solve most of them, or there are
            none. Where all problems are alike the context does not tell them apart, and nothing is taken for one.
        """
        others, told_apart = list[Tensor](), torch.zeros(len(procedures), dtype=torch.bool)
        for i, procedure in enumerate(procedures):
            rows = self.others(procedure, problems[i : i + 1])
            told_apart[i] = len(rows) + 1 < len(self.problems)
            others.append(rows[:SAMPLE])
        # Most procedures that are wrong are known by a few problems.
        solved, count = self._solved(procedures, [rows[:FEW] for rows in others])
        left = (~told_apart | (2 * solved > count)).nonzero()[:, 0]
        solved[left], count[left] = self._solved(procedures[left], [others[i] for i in left.tolist()])
        return SURE * (solved + 1) // (count + 2), told_apart & (2 * solved <= count)

    def _solved(self, procedures: Tensor, rows: list[Tensor]) -> tuple[Tensor, Tensor]:
        """How many of some problems each procedure solves, int64 [n], and how many there are, int64 [n]."""
        n = len(procedures)
        count = torch.tensor([len(each) for each in rows], dtype=torch.int64)
        solved = torch.zeros_like(count)
        if bool(count.any()):
            which, longest = torch.arange(n).repeat_interleave(count), int(lengths(procedures).amax())
            played = procedures[which, : max(1, longest)]
            solved += torch.bincount(
                which[write_programs(self.task, played, self.problems[torch.cat(rows)])[1]], minlength=n
            )
            self.steps += int(lengths(played).sum())
        return solved, count
