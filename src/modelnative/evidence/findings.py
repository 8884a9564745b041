"""Findings: what the success rates of a certificate say about a task, and what its author can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelnative.evidence.certificate import Finding, Level, StageCertificate, SuccessRate

DEFECT = 0.5  # success rate of a handicapped agent from which the stage shows nothing
WARNING = 0.2  # success rate of a handicapped agent from which the stage shows less than it seems to
SOLVED = 0.99  # success rate of a procedure from which it counts as a solution of the stage

# For each agent that should fail: what it does, and what to do if it succeeds.
HANDICAPPED = {
    "random": ("random play succeeds", "Require longer or more exact answers."),
    "end": ("an agent that ends at once succeeds", "Require an answer for success."),
    "start": ("an agent that repeats the start token succeeds", "Require an answer for success."),
    "same_answer": (
        "the oracle's program for the most frequent target, played on every problem, succeeds",
        "One program solves many problems: vary which tools are needed, or balance the targets.",
    ),
    "constant": (
        "one program, the same for all problems, succeeds",
        "Make the agent enter the inputs itself instead of passing them to tools, or draw problems that need different "
        "programs.",
    ),
    "blind": (
        "a network that cannot see the problem succeeds",
        "Balance the answers, and do not let the tools' output reveal them.",
    ),
}


@dataclass(frozen=True)
class OracleFailure:
    """A problem that the oracle fails on.

    Attributes:
        problem: as text.
        program: the oracle's program in tokens; empty if it has none.
        answer, target: the program's answer and the right one.
        end_submits: whether the end token, pressed after the program, succeeds.
    """

    problem: str
    program: str
    answer: Any
    target: Any
    end_submits: bool = False


def stage_findings(measured: StageCertificate, solvable: bool, failures: list[OracleFailure]) -> Iterator[Finding]:
    """The findings of one stage.

    Args:
        measured: its success rates and overlap.
        solvable: whether the task claims that its oracle solves every problem of the stage.
        failures: examples of problems that the oracle fails on.
    """
    stage, rates = measured.stage, measured.figures
    if "oracle" in rates:
        yield from _oracle_findings(stage, solvable, rates["oracle"], failures)
    if measured.overlap is not None and measured.overlap.shared:
        words = f"{measured.overlap.shared:,} problems are in both splits, train and heldout"
        yield Finding("defect", stage, words, "Let the problem's key alone decide its split: `in_split`.")
    for agent, (words, remedy) in HANDICAPPED.items():
        if agent not in rates or rates[agent].rate < WARNING:
            continue
        how = f": {rates[agent].how}" if rates[agent].how else ""
        level: Level = "defect" if rates[agent].rate >= DEFECT else "warning"
        yield Finding(level, stage, f"{words} on {rates[agent].rate:.1%} of the problems{how}", remedy)
    if "memoryless" in rates and rates["memoryless"].rate >= DEFECT:
        words = f"a network without memory succeeds on {rates['memoryless'].rate:.1%} of the problems"
        yield Finding("note", stage, words, "The stage does not measure memory inside the network.")

    if "procedure" in rates and rates["procedure"].rate >= SOLVED:
        words = f"one procedure solves {rates['procedure'].rate:.1%} of the problems: {rates['procedure'].how}"
        remedy = "The stage measures whether an agent finds, orders and remembers it, not a plan for each problem."
        yield Finding("note", stage, words, remedy)
    for agent in (agent for agent, rate in rates.items() if not rate.conclusive):
        words = (
            f"the {agent} network had too few updates to learn ({rates[agent].how}), so that its failure shows nothing"
        )
        yield Finding("warning", stage, words, "Give it more --seconds.")


def _oracle_findings(stage: str, solvable: bool, rate: SuccessRate, failures: list[OracleFailure]) -> Iterator[Finding]:
    if rate.successes == rate.problems:
        return
    fails = f"the oracle fails on {rate.problems - rate.successes:,} of {rate.problems:,} problems"
    if not solvable:
        yield Finding("note", stage, f"{fails}, which spec.solvable allows")
        return
    if any(failure.end_submits for failure in failures):
        words = (
            f"{fails}: the end token submits the answer, but programs are padded with it and end before the first one"
        )
        yield Finding(
            "defect", stage, words, "Submit with another token than spec.end, in the verifier and the oracle."
        )
        return
    wrong = [failure for failure in failures if failure.program]
    unsolved = [failure for failure in failures if not failure.program]
    if wrong:
        first = wrong[0]
        answer = "gives no answer" if first.answer is None else f"answers {first.answer}"
        yield Finding(
            "defect",
            stage,
            f"{fails}. Counterexample: {first.problem}; its program {first.program} {answer}, "
            f"the target is {first.target}",
            "Fix the oracle, or the verifier if the program is right.",
        )
    if unsolved:
        examples = "; ".join(f"{failure.problem} (target {failure.target})" for failure in unsolved)
        yield Finding(
            "defect",
            stage,
            f"{fails} and has no program for some of them, such as {examples}",
            "Draw only problems with a solution, or declare in spec.solvable that some have none.",
        )
