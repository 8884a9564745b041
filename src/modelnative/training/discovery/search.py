"""The search for a procedure that solves a stage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.contract.task import AnyTask, Problems, Split
from modelnative.training.discovery.edits import Editor, symbol_weights
from modelnative.training.discovery.macros import Level, explore, with_macro
from modelnative.training.discovery.population import Population
from modelnative.training.discovery.procedures import PAD, Machines, Map, copies_feedback, distinct, lengths

CHILDREN = 1024  # edited procedures a generation
PROBES, JUDGES = 16, 256  # problems on which every procedure is played, and those that decide whether it is right
HARD = 4  # problems that no known procedure solves, on which macros are tried
PATIENCE = 3  # generations before macros are tried
WITH_MACROS = 4096  # procedures with a macro of one length a generation
CONDITIONS = 2000  # how many different ones macros must lead to before they grow more slowly
DEEPEN = 4  # generations in which they then grow by one symbol
BLIND = 10  # generations after which a search without known procedures explores from nothing
EXTRA = 5  # the fewest generations in which a shorter procedure is looked for after the first
KEPT = 2  # procedures of a stage from which the next stage is searched
LEAST = 1 << 16  # actions that every generation counts as, so that a search which finds nothing new ends too
TURN = 16  # generations of the first turn of a search


@dataclass
class Finding:
    """Where the search for a stage stands.

    Attributes:
        stage: its index.
        procedures: int64 [k, horizon], the best so far, the shortest first; none if nothing solves a problem.
        solved: share of the problems tried that the first of them solves.
        steps: actions that were played for this stage.
        found: whether they solve every problem tried.
        ended: whether the search goes no further.
    """

    stage: int
    procedures: Tensor
    solved: float
    steps: int
    found: bool
    ended: bool = False


class StageSearch:
    """The search for one stage; each call of `generation` goes a little further.

    Args:
        task: whose tools are used.
        stage: index of the stage.
        copy_feedback: whether procedures copy feedback.
        known: int64 [k, horizon], procedures of the stage before; none for the first.
        generator: all chance comes from it.
        map_parts: applies a function to parts of the work.
        split: the problems to search on.
        extra: the fewest generations in which a shorter procedure is looked for after the first.

    Attributes:
        right: int64 [r, horizon], procedures that solve all of the judges, the shortest first.
    """

    def __init__(
        self,
        task: AnyTask,
        stage: int,
        copy_feedback: bool,
        known: Tensor,
        generator: torch.Generator,
        map_parts: Map,
        split: Split,
        extra: int,
    ) -> None:
        self.stage, self.known, self.generator, self.extra = stage, known, generator, extra
        self.machines = Machines(task, copy_feedback, map_parts)
        probes, judges = (task.sample(torch.full((n,), stage), generator, split) for n in (PROBES, JUDGES))
        self.probes: Problems = probes
        self.judges: Problems = judges
        self.editor = Editor(symbol_weights(task, judges, copy_feedback), task.spec.horizon, generator)
        self.population = Population(task.spec.horizon, generator)
        self.candidates = known if len(known) else self.editor.random(4 * CHILDREN)
        self.right = known[:0]
        self.generations = self.until = 0
        self.macros = self._with_macros()

    @property
    def finished(self) -> bool:
        """Whether `right` is final."""
        return bool(len(self.right)) and self.generations >= self.until

    def finding(self) -> Finding:
        """What it has so far."""
        best, solved = self.right[:KEPT], float(len(self.right) > 0)
        if not solved and len(self.population):
            best = self.population.procedures[self.population.solved.argmax()][None]
            solved = float(self.machines.rate(best, self.judges)[0])
        return Finding(self.stage, best, solved, self.machines.steps, self.finished)

    def generation(self) -> None:
        """Play the candidates, keep those that solve something, and make the next ones of the best."""
        procedures, population = distinct(self.candidates), self.population
        success, idle = self.machines.play(procedures, self.probes)
        population.add(_without(procedures, idle), success)
        self._judge((population.solved == PROBES).nonzero()[:, 0])
        self.generations += 1
        if not self.finished:
            self.candidates = torch.cat([self._children(), next(self.macros)])

    def _judge(self, rows: Tensor) -> None:
        """Play the shortest of some procedures on more problems, and shorten those that are right."""
        procedures = self.population.procedures
        rows = rows[lengths(procedures[rows]).argsort(stable=True)[:32]]
        rate = self.machines.rate(procedures[rows], self.judges)
        self.population.solved[rows] = (rate * PROBES).long()
        right = procedures[rows[rate == 1.0][:8]]
        if len(right):
            if not len(self.right):  # go on for as long as it took: a shorter one is easier to build on
                self.until = self.generations + (self.extra and max(self.extra, self.generations))
            self.right = _shortest_first(torch.stack([self._shortest(each) for each in (*self.right, *right)]))

    def _shortest(self, procedure: Tensor) -> Tensor:
        """A right procedure without what it does not need."""
        while True:
            shorter = _shortest_first(self.editor.shortened(procedure))
            right = shorter[self.machines.rate(shorter, self.judges) == 1.0]
            if not len(right):
                return procedure
            procedure = right[0]

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

    def _with_macros(self) -> Iterator[Tensor]:
        """What macros contribute to each generation: procedures that solve what no known one solves, or none."""
        nothing, levels = self.known[:0], explore(self.machines, self.editor, self.probes)
        if not len(self.known):
            yield from itertools.repeat(nothing, BLIND - 1)
            yield next((level.winners for level in levels if len(level.winners)), nothing)
            yield from itertools.repeat(nothing)
        yield from itertools.repeat(nothing, PATIENCE - 1)
        solved = self.machines.play(self.known, self.judges)[0].any(0)
        hard = self.judges[(~solved).nonzero()[:HARD, 0]]
        ways = [with_macro(self.editor, Level.without_macro(self.editor.horizon), self.known, WITH_MACROS)]
        conditions = 0
        for generation in itertools.count():
            found = [nothing]
            grow = generation % DEEPEN == 0
            while grow and (level := next(levels, None)) is not None:
                found.append(level.winners)
                ways.append(with_macro(self.editor, level, self.known, WITH_MACROS))
                conditions += len(level.macros)
                grow = conditions < CONDITIONS
            batches = [batch for way in ways if (batch := next(way, None)) is not None]
            for batch in batches if len(hard) else []:
                found.append(batch[2 * self.machines.play(batch, hard)[0].sum(1) >= len(hard)])
            yield torch.cat(found)


def search_stages(
    task: AnyTask, stages: range, known: Tensor, seed: int, budget: int, map_parts: Map, split: Split = "train"
) -> Iterator[Finding]:
    """Search stage after stage, each from the procedures of the one before, until one is not found.

    Two searches take turns at a stage: one for procedures that copy from the problem alone, and one for procedures that
    also copy feedback. Where those of the stage before copy feedback, the second is alone.

    Args:
        task: whose tools are used.
        stages: their indices.
        known: int64 [k, horizon], procedures that solve the stage before the first of `stages`; none for the first.
        seed: of all chance. What is found for a stage depends on it and on `known` alone.
        budget: the most actions to play for a stage; a generation counts as at least `LEAST`.
        map_parts: applies a function to parts of the work.
        split: the problems to search on.

    Yields:
        Where the search stands, after every generation.
    """
    width = task.spec.feedback_width
    for stage in stages:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + stage)
        extra = 0 if stage == stages[-1] else EXTRA
        searches = [
            StageSearch(task, stage, copy_feedback, known, generator, map_parts, split, extra)
            for copy_feedback in ([True] if copies_feedback(task, known) else [False, *[True] * bool(width)])
        ]
        spent = 0
        for search in _turns(searches):
            before = search.machines.steps
            search.generation()
            spent += max(LEAST, search.machines.steps - before)
            finding = search.finding()
            finding.steps = sum(each.machines.steps for each in searches)
            finding.ended = finding.found or spent > budget
            yield finding
            if finding.ended:
                break
        if not finding.found:
            return
        known = finding.procedures


def _turns(searches: list[StageSearch]) -> Iterator[StageSearch]:
    """Each in turn, for `TURN` generations, then twice as many, and so on."""
    for turn in itertools.count():
        for search in searches:
            yield from itertools.repeat(search, TURN << turn)


def _without(procedures: Tensor, idle: Tensor) -> Tensor:
    """Procedures without some of their symbols, bool [n, horizon]."""
    kept = ~idle & (procedures != PAD)
    moved = procedures.gather(1, (~kept).long().argsort(stable=True, dim=1))
    return torch.where(torch.arange(procedures.shape[1]) < kept.sum(1, keepdim=True), moved, PAD)


def _shortest_first(procedures: Tensor) -> Tensor:
    procedures = distinct(procedures)
    return procedures[lengths(procedures).argsort(stable=True)]
