"""Certificates: the success rates of the oracle and of handicapped agents on each stage of a task."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError, in_words, require_number
from modelnative.evidence.baselines import Handicap, train_baseline
from modelnative.evidence.certificate import LEVELS, Certificate, Finding, SplitOverlap, StageCertificate, SuccessRate
from modelnative.evidence.findings import WARNING, OracleFailure, stage_findings
from modelnative.evidence.problem_set import ProblemSet, problem_text
from modelnative.evidence.programs import Program, best_program, played, successes
from modelnative.tasks import make_task, require_task
from modelnative.tasks.contract.check import TaskError, check_task
from modelnative.tasks.contract.task import AnyTask, Problems, State, program_length
from modelnative.tasks.tools.task import ToolTask
from modelnative.training.discovery.procedures import Symbols, write_programs
from modelnative.training.discovery.search import Finding as FoundProcedures
from modelnative.training.discovery.search import search_stages
from modelnative.training.parallel import Pool, cores

TRAINED: tuple[Handicap, ...] = ("memoryless", "blind")
MAX_EXAMPLES = 3  # problems listed in a finding
MAX_SHOWN_TOKENS = 40  # of a program
MANY = 1000  # problems, above which the search for the best constant program takes noticeable time
MIN_UPDATES = 50  # of a network, before its failure says something about the task
SEARCHED = 200  # actions for each problem that the search for a procedure may play
MAX_PROPOSALS = 4096  # oracle programs that start the search for the best constant program
# Exceptions that a task may raise when it breaks the contract.
CONTRACT_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def certify(
    task: str | AnyTask,
    stage: str | Sequence[str] | None = None,
    *,
    options: dict[str, Any] | None = None,
    problems: int = 100_000,
    seconds: float = 20.0,
    train: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Certificate:
    """Measure how far agents get on a task that should fail on it, whether its oracle always succeeds, and its faults.

    Args:
        task: a name, `package.module:Class`, or a task itself. Without an oracle, the figures `oracle` and
            `same_answer` are left out.
        stage: a stage's name, or several; all by default.
        options: of a task that is given by name.
        problems: stages with at most so many are counted whole; of others so many are drawn. The search for a procedure
            plays 200 times as many actions for a stage.
        seconds: of training a stage, shared by the memoryless network and the one that cannot see the problem.
        train: whether to train them.
        progress: is called with a line before everything that takes time.

    Returns:
        The certificate. Ctrl-C ends it early, with what was measured so far; `interrupted` says so.

    Raises:
        UserError: an unknown task, option or stage, a number that is not allowed, or a class that cannot be made.
    """
    require_number("problems", problems, 1, 10**9, "from 1 to 1000000000")
    allowed = "more than 0, at most 1000000; to train nothing: --no-train"
    require_number("seconds", seconds, 0, 1_000_000, allowed, whole=False, above=True)
    name = task if isinstance(task, str) else ""
    if isinstance(task, str):
        task = make_task(task, **(options or {}))
    elif options:
        raise UserError(f"options: {options!r} is not allowed beside a task that is made already")
    task = require_task(task)
    names = task.spec.stages if stage is None else [stage] if isinstance(stage, str) else stage
    indices = [task.spec.stage_index(name) for name in names]
    start, interrupted = time.perf_counter(), False
    findings: list[Finding] = []
    measured: list[StageCertificate] = []
    report = progress or (lambda line: None)
    procedures = ProcedureSearch(task, SEARCHED * problems)
    try:
        report("the contract; programs of the oracle that must be searched are searched here")
        broken = broken_clause(task)
        if broken:
            findings.append(Finding("defect", None, f"the contract is broken: {broken}", "Fix this first."))
        if not task.has_oracle:
            words = "the task has no oracle, so that oracle and commonest answer are not measured"
            findings.append(Finding("note", None, words, "To measure them, define `oracle`."))
        for index in indices:
            measurement = StageMeasurement(task, index, problems, report, procedures)
            try:
                measurement.run(seconds if train else 0.0)
            except CONTRACT_ERRORS as error:
                if not broken:  # the error is not the task's
                    raise
                words = f"the rest cannot be measured while the contract is broken: {in_words(error)}"
                findings.append(Finding("note", measurement.name, words))
            finally:
                measured.append(measurement.certificate())
                solvable = not task.spec.solvable or task.spec.solvable[index]
                findings += stage_findings(measured[-1], solvable, measurement.failures)
    except KeyboardInterrupt:
        interrupted = True
    findings += [Finding("note", None, note) for note in task.notes()]
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    duration = time.perf_counter() - start
    return Certificate(name or task.spec.name, task.options(), tuple(measured), tuple(findings), duration, interrupted)


def broken_clause(task: AnyTask) -> str:
    """The first clause of the contract that `check_task` finds broken; empty if the contract holds."""
    try:
        check_task(task)
    except TaskError as error:
        return str(error)
    except CONTRACT_ERRORS as error:
        return in_words(error)
    return ""


class ProcedureSearch:
    """Searches the stages of a task in their order, each from what solved the stage before, and each once.

    Args:
        task: any.
        budget: the most actions to play for a stage.
    """

    def __init__(self, task: AnyTask, budget: int) -> None:
        self.task, self.budget, self.findings = task, budget, list[FoundProcedures]()
        self.known = torch.empty(0, task.spec.horizon, dtype=torch.int64)

    def best(self, stage: int) -> FoundProcedures:
        """What was found for a stage."""
        while len(self.findings) <= stage:
            stages = range(len(self.findings), len(self.task.spec.stages))
            search = search_stages(self.task, stages, self.known, 0, self.budget, Pool(cores()).map, "all")
            finding = next(finding for finding in search if finding.ended)
            self.findings.append(finding)
            self.known = finding.procedures if finding.found else self.known
        return self.findings[stage]


class StageMeasurement:
    """Measures one stage. `figures` fill up step by step, so that an interruption keeps what is done.

    Args:
        task: any task.
        stage: index of the stage.
        limit: most problems to play.
        progress: called with one line before each measurement.
        procedures: of the stages of the task.

    Attributes:
        figures: success rates so far, by agent.
        failures: examples of problems that the oracle fails on.
    """

    def __init__(
        self,
        task: AnyTask,
        stage: int,
        limit: int,
        progress: Callable[[str], None],
        procedures: ProcedureSearch | None = None,
    ) -> None:
        self.task, self.stage, self.limit, self.progress = task, stage, limit, progress
        self.procedures = procedures or ProcedureSearch(task, SEARCHED * limit)
        self.name = task.spec.stages[stage]
        self.problems = ProblemSet(task, stage, "all", False, 0)
        self.figures: dict[str, SuccessRate] = {}
        self.overlap: SplitOverlap | None = None
        self.failures: list[OracleFailure] = []
        self.program_length = task.spec.horizon  # of the longest program to search for

    def certificate(self) -> StageCertificate:
        """What was measured so far."""
        return StageCertificate(self.name, self.problems.count, self.problems.listed, self.figures, self.overlap)

    def run(self, training_seconds: float) -> None:
        """Measure everything, the fast measurements first; 0 seconds train no baseline."""
        self._report("the problems")
        self.problems = ProblemSet.of(self.task, self.stage, "all", self.limit)
        train = ProblemSet.of(self.task, self.stage, "train", self.limit)
        self._measure_overlap(train, ProblemSet.of(self.task, self.stage, "heldout", self.limit))
        if not self.problems.count:
            raise UserError(f"stage: {self.name} has no problems; expected at least 1")
        if self.task.has_oracle:
            self._report("the oracle")
            self._measure_oracle()
        self._report("random agents and agents that do nothing")
        self._measure_random()
        spec = self.task.spec
        self._measure_program("end", (spec.end,))
        self._measure_program("start", (spec.start,) * spec.horizon)
        proposals: list[Program] = []
        if self.task.has_oracle:
            self._report("always the commonest answer")
            proposals = self.measure_same_answer(train if train.count else self.problems)
        self._report(f"the best fixed program{', up to a minute' if self.problems.count > MANY else ''}")
        self._measure_best_program(proposals)
        if not isinstance(self.task, ToolTask):  # millions of actions, each of which may call the user's code
            self._report("the best procedure that copies")
            self._measure_procedure()
        for handicap in TRAINED if training_seconds else ():
            self._report(f"training a {handicap} network, {training_seconds / len(TRAINED):g} s")
            self._measure_trained(handicap, training_seconds / len(TRAINED))

    def _report(self, what: str) -> None:
        self.progress(f"{self.name}: {what}")

    def _measure_overlap(self, train: ProblemSet, heldout: ProblemSet) -> None:
        try:
            train_keys, heldout_keys = _unique_keys(train), _unique_keys(heldout)
        except UserError:  # an empty split cannot be sampled
            train_keys = heldout_keys = torch.empty(0, dtype=torch.int64)
        shared = int(torch.isin(train_keys, heldout_keys).sum())
        exact = train.listed and heldout.listed
        self.overlap = SplitOverlap(shared, len(train_keys), len(heldout_keys), exact)

    def _measure_oracle(self) -> None:
        solved, self.program_length = 0, 1
        for chunk in self.problems.chunks():
            programs = self.task.oracle(chunk)
            longest = max(1, int(program_length(programs, self.task.spec.end).max()))
            self.program_length = max(self.program_length, longest)
            for part, success, state in played(self.task, chunk, programs[:, :longest]):
                solved += int(success.sum())
                for i in (~success).nonzero()[:, 0].tolist()[:MAX_EXAMPLES]:
                    self._keep_failure(part[i : i + 1], state[i : i + 1])
        self.figures["oracle"] = SuccessRate(solved, self.problems.count, self.problems.listed)

    def _keep_failure(self, problem: Problems, state: State) -> None:
        """Keep `MAX_EXAMPLES` failures of the oracle with a program, and as many without one."""
        (tokens,) = self._oracle_programs(problem)
        if sum(bool(failure.program) == bool(tokens) for failure in self.failures) < MAX_EXAMPLES:
            record = self.task.records(problem, state)[0]
            text = problem_text(self.task, problem, 0)
            submits = bool(self.task.step(state, torch.tensor([self.task.spec.end])).success)
            program = self._program_text(tokens)
            self.failures.append(OracleFailure(text, program, record["answer"], record["target"], submits))

    def _measure_random(self) -> None:
        spec, generator, solved = self.task.spec, torch.Generator().manual_seed(0), 0
        for chunk in self.problems.chunks():
            actions = torch.randint(len(spec.vocabulary), (len(chunk), spec.horizon), generator=generator)
            solved += successes(self.task, chunk, actions)
        self.figures["random"] = SuccessRate(solved, self.problems.count, False)

    def _measure_program(self, agent: str, program: Program, how: str = "", best: bool = True, seed: int = 0) -> None:
        actions = torch.tensor([program])
        solved = sum(successes(self.task, chunk, actions) for chunk in self.problems.chunks(seed))
        self.figures[agent] = SuccessRate(solved, self.problems.count, self.problems.listed, best, how)

    def _program_text(self, program: Sequence[int]) -> str:
        """A program's token names, without the middle of a long program."""
        names = [self.task.spec.vocabulary[token] for token in program]
        if len(names) > MAX_SHOWN_TOKENS:
            half = MAX_SHOWN_TOKENS // 2
            names = [*names[:half], f"… ({len(names) - MAX_SHOWN_TOKENS:,} more) …", *names[-half:]]
        return " ".join(names)

    def measure_same_answer(self, train: ProblemSet) -> list[Program]:
        """Measure an agent that always gives the most frequent target of the training split.

        It plays the oracle's most frequent program for that target on every problem.

        Returns:
            The oracle's programs for some training problems, evenly spaced.
        """
        targets: list[str] = []
        proposals: list[Program] = []
        step = max(1, train.count // MAX_PROPOSALS)
        for chunk in train.chunks():
            records = self.task.records(chunk, self.task.begin(chunk))
            proposals += self._oracle_programs(chunk[torch.arange(-len(targets) % step, len(chunk), step)])
            targets += [json.dumps(record["target"], sort_keys=True) for record in records]
        counts = Counter(targets)
        target = min(counts, key=lambda name: (-counts[name], name))
        programs: Counter[Program] = Counter()
        start = 0
        for chunk in train.chunks():
            same = [name == target for name in targets[start : start + len(chunk)]]
            programs.update(self._oracle_programs(chunk[torch.tensor(same)]))
            start += len(chunk)
        program = min(programs, key=lambda program: (-programs[program], len(program), program))
        how = f"{self._program_text(program)} (target {target})"
        self._measure_program("same_answer", program or (self.task.spec.end,), how)
        return proposals

    def _oracle_programs(self, problems: Problems) -> list[Program]:
        """The oracle's programs without their padding."""
        if not len(problems):
            return []
        programs = self.task.oracle(problems)
        lengths = program_length(programs, self.task.spec.end).tolist()
        return [tuple(row[:n]) for row, n in zip(programs.tolist(), lengths, strict=True)]

    def _measure_best_program(self, proposals: list[Program]) -> None:
        found = best_program(self.task, self.problems.whole(), self.program_length, proposals)
        search = f"beam of {found.beam_width}" if found.beam_width else "exact search"
        how = f"{self._program_text(found.program)} ({search}, up to {found.max_length} tokens)"
        # A sampled stage is sampled again, so that the program is not measured on the problems that selected it.
        self._measure_program("constant", found.program, how, not found.beam_width, seed=1)
        same = self.figures.get("same_answer")
        if same is not None and same.rate > self.figures["constant"].rate:  # it is a fixed program, too
            self.figures["constant"] = dataclasses.replace(same, best=False)

    def _measure_procedure(self) -> None:
        finding, constant = self.procedures.best(self.stage), self.figures["constant"]
        search = f"search with {finding.steps:,} actions"
        solved = 0
        for procedure in finding.procedures[:1]:
            for chunk in self.problems.chunks(seed=1):
                solved += int(write_programs(self.task, procedure.expand(len(chunk), -1), chunk)[1].sum())
        if solved <= constant.successes:  # a constant program is a procedure, too
            self.figures["procedure"] = dataclasses.replace(
                constant, best=False, how=f"the best fixed program; {search}"
            )
            return
        how = f"{Symbols(self.task.spec).text(finding.procedures[0])} ({search})"
        perfect = solved == self.problems.count
        self.figures["procedure"] = SuccessRate(solved, self.problems.count, self.problems.listed, perfect, how)

    def _measure_trained(self, handicap: Handicap, seconds: float) -> None:
        trained = train_baseline(self.task, self.stage, handicap, self.problems.whole(), seconds)
        exact = self.problems.listed and trained.greedy and trained.problems == self.problems.count
        how = f"{trained.updates} updates, {'greedy' if trained.greedy else 'sampled'}"
        how += f", tool output: {trained.tool_output}" if trained.tool_output else ""
        succeeds = trained.successes >= WARNING * trained.problems
        conclusive = succeeds or trained.updates >= MIN_UPDATES
        self.figures[handicap] = SuccessRate(trained.successes, trained.problems, exact, False, how, conclusive)


def _unique_keys(problems: ProblemSet) -> Tensor:
    return torch.cat([torch.empty(0, dtype=torch.int64), *(chunk.key for chunk in problems.chunks())]).unique()
