"""Certificates: how far agents get on a stage that do not do what it asks, and whether the oracle always does."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modelnative.errors import UserError, in_words
from modelnative.evidence.baselines import Handicap, train_baseline
from modelnative.evidence.findings import Finding, Miss, judge
from modelnative.evidence.problem_set import Source
from modelnative.evidence.programs import Program, best_program, played, successes
from modelnative.evidence.statistics import wilson
from modelnative.tasks.contract.check import TaskError, check_task
from modelnative.tasks.contract.task import AnyTask, Problems, program_length, require

AGENTS = ("oracle", "random", "end", "start", "same_answer", "constant", "memoryless", "blind")
TRAINED: tuple[Handicap, ...] = ("memoryless", "blind")
EXAMPLES = 3  # problems that a finding shows
SHOWN = 40  # tokens of a program
PROPOSALS = 4096  # programs of the oracle that the search for a constant one is given
# What the code of somebody's task may raise when it breaks the contract.
BROKEN = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Figure:
    """Successes of one agent on one stage.

    Attributes:
        successes, problems: of those that it played.
        exact: every problem was played, and nothing was left to chance; else `interval` holds 95% of the time.
        best: nothing can do better (constant: the search was exact). Otherwise what was found is a lower bound.
        how: what else there is to say: the program, the search, the training.
    """

    successes: int
    problems: int
    exact: bool
    best: bool = True
    how: str = ""

    @property
    def rate(self) -> float:
        """Successes over problems."""
        return self.successes / self.problems

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% Wilson interval of the rate; None where the count is exact."""
        return None if self.exact else wilson(self.successes, self.problems)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "rate": self.rate, "interval": self.interval}


@dataclass(frozen=True)
class Overlap:
    """Problems (by key) that are in both splits; `exact` when both were listed whole."""

    shared: int
    train: int
    heldout: int
    exact: bool


@dataclass(frozen=True)
class StageCertificate:
    """What was measured of one stage; what was not is missing.

    Attributes:
        stage: its name.
        problems: how many were looked at; `listed` when these are all that there are.
        figures: by the names in `AGENTS`.
        overlap: of the splits.
    """

    stage: str
    problems: int
    listed: bool
    figures: dict[str, Figure]
    overlap: Overlap | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; an agent that was not measured is None."""
        figures = {name: self.figures[name].as_dict() if name in self.figures else None for name in AGENTS}
        overlap = None if self.overlap is None else vars(self.overlap)
        return {"stage": self.stage, "problems": self.problems, "listed": self.listed, **figures, "overlap": overlap}


@dataclass(frozen=True)
class Certificate:
    """What `certify` found.

    Attributes:
        task, options: its name and options.
        stages: those that were asked for, as far as it got.
        findings: what is wrong or worth knowing, the worst first.
        seconds: that it took.
        interrupted: Ctrl-C came before everything was measured.
    """

    task: str
    options: dict[str, Any]
    stages: tuple[StageCertificate, ...]
    findings: tuple[Finding, ...]
    seconds: float
    interrupted: bool

    @property
    def sound(self) -> bool:
        """There is no defect in what was measured."""
        return not any(finding.level == "defect" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        parts = {"stages": [s.as_dict() for s in self.stages], "findings": [vars(f) for f in self.findings]}
        return {**vars(self), **parts, "sound": self.sound}


def certify(
    task: AnyTask,
    *,
    stages: Sequence[str] | None = None,
    problems: int = 100_000,
    seconds: float = 20.0,
    train: bool = True,
    tell: Tell | None = None,
) -> Certificate:
    """Measure a task: its oracle, its splits, and agents that should fail.

    Args:
        task: any.
        stages: names; all by default.
        problems: a stage that has more is sampled.
        seconds: of training a stage, shared by the trained baselines.
        train: whether to train them.
        tell: is given a line before everything that takes time.

    Returns:
        What was found, up to Ctrl-C if that came.

    Raises:
        UserError: an unknown stage, or a number that is not allowed.
    """
    require(problems >= 1, "problems", problems, "at least 1")
    require(seconds > 0, "seconds", seconds, "more than 0; to train nothing: --no-train")
    names = list(task.spec.stages) if stages is None else list(stages)
    places = [task.spec.stage_index(name) for name in names]
    start, interrupted = time.perf_counter(), False
    findings: list[Finding] = []
    measured: list[StageCertificate] = []
    say = tell or (lambda line: None)
    try:
        say("the contract")
        broken = broken_clause(task)
        if broken:
            findings.append(Finding("defect", None, f"the contract is broken: {broken}", "Mend that first."))
        for place in places:
            examiner = Examiner(task, place, problems, say)
            try:
                examiner.run(seconds if train else 0.0)
            except BROKEN as error:
                if not broken:  # then it is not the task's fault
                    raise
                words = f"the rest cannot be measured while the contract is broken: {in_words(error)}"
                findings.append(Finding("note", examiner.name, words))
            finally:
                measured.append(examiner.certificate())
                findings += judge(task, place, measured[-1].figures, measured[-1].overlap, examiner.misses)
    except KeyboardInterrupt:
        interrupted = True
    order = {"defect": 0, "warning": 1, "note": 2}
    findings.sort(key=lambda finding: order[finding.level])
    took = time.perf_counter() - start
    return Certificate(task.spec.name, task.options(), tuple(measured), tuple(findings), took, interrupted)


def broken_clause(task: AnyTask) -> str:
    """What `check_task` has to say, in words; empty if the contract holds."""
    try:
        check_task(task)
    except TaskError as error:
        return str(error)
    except BROKEN as error:
        return in_words(error)
    return ""


class Examiner:
    """One stage under examination; `figures` fill up as it goes on, so that an interruption loses little."""

    def __init__(self, task: AnyTask, stage: int, problems: int, say: Tell) -> None:
        self.task, self.stage, self.limit, self.say = task, stage, problems, say
        self.name = task.spec.stages[stage]
        self.source = Source(task, stage, "all", False, 0)
        self.figures: dict[str, Figure] = {}
        self.overlap: Overlap | None = None
        self.misses: list[Miss] = []
        self.length = 1

    def certificate(self) -> StageCertificate:
        """What there is so far."""
        return StageCertificate(self.name, self.source.count, self.source.listed, self.figures, self.overlap)

    def run(self, seconds: float) -> None:
        """Measure everything, the quick things first; train for so many seconds, or not at all."""
        self._say("the problems")
        self.source = Source.of(self.task, self.stage, "all", self.limit)
        train = Source.of(self.task, self.stage, "train", self.limit)
        self._splits(train, Source.of(self.task, self.stage, "heldout", self.limit))
        if not self.source.count:
            raise UserError(f"stage: {self.name} has no problems; expected at least 1")
        self._say("the oracle")
        self._oracle()
        self._say("random and idle agents")
        self._random()
        spec = self.task.spec
        self._constant("end", (spec.end,))
        self._constant("start", (spec.start,) * spec.horizon)
        self._say("always the same answer")
        proposals = self._same_answer(train if train.count else self.source)
        self._say("the best constant program")
        self._best_constant(proposals)
        for handicap in TRAINED if seconds else ():
            self._say(f"training a {handicap} network, {seconds / len(TRAINED):g} s")
            self._train(handicap, seconds / len(TRAINED))

    def _say(self, what: str) -> None:
        self.say(f"{self.name}: {what}")

    def _splits(self, train: Source, heldout: Source) -> None:
        try:
            keys = [
                torch.cat([torch.empty(0, dtype=torch.int64), *(p.key for p in s.chunks())]) for s in (train, heldout)
            ]
        except UserError:  # a split that is empty cannot be drawn from
            keys = [torch.empty(0, dtype=torch.int64)] * 2
        ours, theirs = (key.unique() for key in keys)
        shared = int(torch.isin(ours, theirs).sum())
        self.overlap = Overlap(shared, len(ours), len(theirs), train.listed and heldout.listed)

    def _oracle(self) -> None:
        right = 0
        for chunk in self.source.chunks():
            programs = self.task.oracle(chunk)
            lengths = program_length(programs, self.task.spec.end)
            longest = max(1, int(lengths.max()))
            self.length = max(self.length, longest)
            for part, success, state in played(self.task, chunk, programs[:, :longest]):
                right += int(success.sum())
                for i in (~success).nonzero()[:, 0].tolist()[:EXAMPLES]:
                    self._miss(part[i : i + 1], state[i : i + 1])
        self.figures["oracle"] = Figure(right, self.source.count, self.source.listed)

    def _miss(self, problem: Problems, state: Any) -> None:
        (tokens,) = self._programs(problem)
        if sum(bool(miss.program) == bool(tokens) for miss in self.misses) < EXAMPLES:
            record = self.task.records(problem, state)[0]
            self.misses.append(
                Miss(self.task.render(problem, 0), self._typed(tokens), record["answer"], record["target"])
            )

    def _random(self) -> None:
        spec, generator, right = self.task.spec, torch.Generator().manual_seed(0), 0
        for chunk in self.source.chunks():
            actions = torch.randint(len(spec.vocabulary), (len(chunk), spec.horizon), generator=generator)
            right += sum(int(success.sum()) for _, success, _ in played(self.task, chunk, actions))
        self.figures["random"] = Figure(right, self.source.count, False)

    def _constant(self, agent: str, program: Program, how: str = "", best: bool = True, seed: int = 0) -> None:
        actions = torch.tensor([program])
        right = sum(successes(self.task, chunk, actions) for chunk in self.source.chunks(seed))
        self.figures[agent] = Figure(right, self.source.count, self.source.listed, best, how)

    def _typed(self, program: Sequence[int]) -> str:
        """A program in tokens; the middle of a long one is left out."""
        names = [self.task.spec.vocabulary[token] for token in program]
        if len(names) > SHOWN:
            names = [*names[: SHOWN // 2], f"… ({len(names) - SHOWN:,} more) …", *names[-(SHOWN // 2) :]]
        return " ".join(names)

    def _same_answer(self, train: Source) -> list[Program]:
        """Play the most frequent target of the training split as the oracle types it.

        Of the problems with that target, the most frequent program of the oracle's is played on all problems.

        Returns:
            The oracle's programs of some training problems, evenly spaced.
        """
        targets: list[str] = []
        proposals: list[Program] = []
        step = max(1, train.count // PROPOSALS)
        for chunk in train.chunks():
            records = self.task.records(chunk, self.task.begin(chunk))
            proposals += self._programs(chunk[torch.arange(-len(targets) % step, len(chunk), step)])
            targets += [json.dumps(record["target"], sort_keys=True) for record in records]
        counts = Counter(targets)
        target = min(counts, key=lambda name: (-counts[name], name))
        typed: Counter[Program] = Counter()
        start = 0
        for chunk in train.chunks():
            same = [name == target for name in targets[start : start + len(chunk)]]
            typed.update(self._programs(chunk[torch.tensor(same)]))
            start += len(chunk)
        program = min(typed, key=lambda program: (-typed[program], len(program), program))
        self._constant("same_answer", program or (self.task.spec.end,), f"{self._typed(program)} (target {target})")
        return proposals

    def _programs(self, problems: Problems) -> list[Program]:
        """The oracle's, without their padding."""
        if not len(problems):
            return []
        programs = self.task.oracle(problems)
        lengths = program_length(programs, self.task.spec.end).tolist()
        return [tuple(row[:n]) for row, n in zip(programs.tolist(), lengths, strict=True)]

    def _best_constant(self, proposals: list[Program]) -> None:
        found = best_program(self.task, self.source.whole(), self.length, proposals)
        search = f"beam of {found.width}" if found.width else "exact search"
        how = f"{self._typed(found.program)} ({search}, up to {found.length} tokens)"
        # Of drawn problems others are drawn, so that the program is not judged by those that it was chosen by.
        self._constant("constant", found.program, how, not found.width, seed=1)

    def _train(self, handicap: Handicap, seconds: float) -> None:
        trained = train_baseline(self.task, self.stage, handicap, self.source.whole(), seconds)
        exact = self.source.listed and trained.greedy and trained.problems == self.source.count
        how = f"{trained.updates} updates, {'greedy' if trained.greedy else 'sampled'}"
        how += f", saw {trained.eyes}" if trained.eyes else ""
        self.figures[handicap] = Figure(trained.successes, trained.problems, exact, False, how)
