"""The search for one procedure that solves all of some problems."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from modelnative.tasks.contract.task import Problems
from modelnative.training.discovery.edits import Editor, symbol_weights
from modelnative.training.discovery.macros import Level, explore, with_macro
from modelnative.training.discovery.population import Population
from modelnative.training.discovery.procedures import PAD, Machines, distinct, lengths

CHILDREN = 1024  # edited procedures a generation
PROBES, JUDGES = 16, 256  # problems on which every procedure is played, and those that decide whether it is right
HARD = 4  # problems that no known procedure solves, on which macros are tried
PATIENCE = 3  # generations before macros are tried
WITH_MACROS = 4096  # procedures with a macro of one length a generation
CONDITIONS = 2000  # how many different ones macros must lead to before they grow more slowly
DEEPEN = 4  # generations in which they then grow by one symbol
BLIND = 10  # generations after which a search without known procedures explores from nothing


class StageSearch:
    """A search in generations; each goes a little further.

    Args:
        machines: play the procedures.
        probes: `PROBES` problems of one stage, on which every procedure is played.
        judges: more of them, which decide.
        known: int64 [k, horizon], procedures of the stage before; none for the first.
        generator: all chance comes from it.
        extra: the fewest generations in which a shorter procedure is looked for after the first.
        levels: macros for procedures that solve some of the problems; None: those that solve all are looked for, and
            macros are explored for them.

    Attributes:
        right: int64 [r, horizon], procedures that solve all of the judges, the shortest first.
    """

    def __init__(
        self,
        machines: Machines,
        probes: Problems,
        judges: Problems,
        known: Tensor,
        generator: torch.Generator,
        extra: int = 0,
        levels: list[Level] | None = None,
    ) -> None:
        task = machines.task
        self.machines, self.probes, self.judges, self.known = machines, probes, judges, known
        self.generator, self.extra = generator, extra
        weights = symbol_weights(task, judges, machines.copy_feedback)
        self.editor = Editor(weights, task.spec.horizon, generator)
        self.population = Population(task.spec.horizon, generator)
        self.candidates = known if len(known) else self.editor.random(4 * CHILDREN)
        self.right = known[:0]
        self.generations = self.until = 0
        self.macros = self._for_all() if levels is None else self._with_macros(iter(levels), probes[:HARD], 1)

    @property
    def finished(self) -> bool:
        """Whether `right` is final."""
        return bool(len(self.right)) and self.generations >= self.until

    def best(self) -> tuple[Tensor, float]:
        """The best so far, int64 [k, horizon], the shortest first; and the share of the judges that the first solves.

        Nothing if none solves a problem.
        """
        if len(self.right) or not len(self.population):
            return self.right, float(len(self.right) > 0)
        best = self.population.procedures[self.population.solved.argmax()][None]
        return best, float(self.machines.rate(best, self.judges)[0])

    def generation(self) -> None:
        """Play the candidates, keep those that solve something, and make the next ones of the best."""
        procedures, population = distinct(self.candidates), self.population
        success, idle = self.machines.play(procedures, self.probes)
        population.add(_without(procedures, idle), success)
        self._judge((population.solved == len(self.probes)).nonzero()[:, 0])
        self.generations += 1
        if not self.finished:
            self.candidates = torch.cat([self._children(), next(self.macros)])

    def shortest(self, procedure: Tensor, problems: Problems) -> Tensor:
        """A procedure that solves all of the problems, without what it does not need for that."""
        while True:
            shorter = _shortest_first(self.editor.shortened(procedure))
            right = shorter[self.machines.rate(shorter, problems) == 1.0]
            if not len(right):
                return procedure
            procedure = right[0]

    def _judge(self, rows: Tensor) -> None:
        """Play the shortest of some procedures on more problems, and shorten those that are right."""
        procedures = self.population.procedures
        rows = rows[lengths(procedures[rows]).argsort(stable=True)[:32]]
        rate = self.machines.rate(procedures[rows], self.judges)
        self.population.solved[rows] = (rate * len(self.probes)).long()
        right = procedures[rows[rate == 1.0][:8]]
        if len(right):
            if not len(self.right):  # go on for as long as it took: a shorter one is easier to build on
                self.until = self.generations + (self.extra and max(self.extra, self.generations))
            shortened = [self.shortest(each, self.judges) for each in (*self.right, *right)]
            self.right = _shortest_first(torch.stack(shortened))

    def _children(self) -> Tensor:
        """Edits of the best, or new ones where nothing solves anything yet."""
        known, editor = self.known, self.editor
        if len(self.population):
            parents, donors = self.population.parents(CHILDREN, at_home=bool(len(known)))
            return editor.edited(parents, torch.cat([donors, known.repeat(64, 1)]), (0.35, 0.1))
        if not len(known):
            return editor.random(4 * CHILDREN)
        return editor.edited(
            known[torch.randint(len(known), (CHILDREN,), generator=self.generator)], known, (0.5, 0.25)
        )

    def _for_all(self) -> Iterator[Tensor]:
        """What macros contribute to each generation: procedures that solve what no known one solves, or none."""
        nothing, levels = self.known[:0], explore(self.machines, self.editor, self.probes)
        if not len(self.known):
            yield from itertools.repeat(nothing, BLIND - 1)
            yield next((level.winners for level in levels if len(level.winners)), nothing)
            yield from itertools.repeat(nothing)
        yield from itertools.repeat(nothing, PATIENCE - 1)
        solved = self.machines.play(self.known, self.judges)[0].any(0)
        hard = self.judges[(~solved).nonzero()[:HARD, 0]]
        yield from self._with_macros(levels, hard, (len(hard) + 1) // 2)

    def _with_macros(self, levels: Iterator[Level], hard: Problems, least: int) -> Iterator[Tensor]:
        """Macros by themselves, and known procedures behind them that solve at least so many of the hard problems."""
        ways = [with_macro(self.editor, Level.without_macro(self.editor.horizon), self.known, WITH_MACROS)]
        conditions = 0
        for generation in itertools.count():
            found, grow = [self.known[:0]], generation % DEEPEN == 0
            while grow and (level := next(levels, None)) is not None:
                found.append(level.winners)
                ways.append(with_macro(self.editor, level, self.known, WITH_MACROS))
                conditions += len(level.macros)
                grow = conditions < CONDITIONS
            batches = [batch for way in ways if (batch := next(way, None)) is not None]
            for batch in batches if len(hard) else []:
                found.append(batch[self.machines.play(batch, hard)[0].sum(1) >= least])
            yield torch.cat(found)


def _without(procedures: Tensor, idle: Tensor) -> Tensor:
    """Procedures without some of their symbols, bool [n, horizon]."""
    kept = ~idle & (procedures != PAD)
    moved = procedures.gather(1, (~kept).long().argsort(stable=True, dim=1))
    return torch.where(torch.arange(procedures.shape[1]) < kept.sum(1, keepdim=True), moved, PAD)


def _shortest_first(procedures: Tensor) -> Tensor:
    procedures = distinct(procedures)
    return procedures[lengths(procedures).argsort(stable=True)]
