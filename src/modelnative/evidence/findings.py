"""What the figures of a certificate mean, in words: what is wrong with a task, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from modelnative.tasks.contract.task import AnyTask

DEFECT = 0.5  # success of an agent that does not do what the stage asks, from which the stage shows nothing
WARNING = 0.2  # the same, from which it shows less than it seems to

Level = Literal["defect", "warning", "note"]

# What each agent that ought to fail did, and what to do about it.
FLOORS = {
    "random": ("random play succeeds", "Ask for longer or more exact answers."),
    "end": ("an agent that ends at once succeeds", "Let success need an answer."),
    "start": ("an agent that presses the start token for ever succeeds", "Let success need an answer."),
    "same_answer": (
        "the oracle's program for the most frequent target, played on every problem, succeeds",
        "Draw the problems so that no target is frequent.",
    ),
    "constant": (
        "one program, the same for all problems, succeeds",
        "Let the agent type what it has read (no tool may know it), or draw problems of which programs differ.",
    ),
    "blind": (
        "a network that cannot see the problem succeeds",
        "Draw the problems so that no answer is frequent, and let the feedback tell less.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """Something about a task that its author should know.

    Attributes:
        level: defect (it fails its certificate), warning, or note.
        stage: its name; None when it is about the task.
        words: what there is.
        remedy: what to do about it.
    """

    level: Level
    stage: str | None
    words: str
    remedy: str = ""

    def line(self) -> str:
        """All of it in one line.

        Example:
            >>> Finding("warning", "T0", "random play succeeds on 30%", "Ask for more.").line()
            'warning: T0: random play succeeds on 30%. Ask for more.'
        """
        where = f"{self.stage}: " if self.stage else ""
        return f"{self.level}: {where}{self.words.rstrip('.')}. {self.remedy}".rstrip()


@dataclass(frozen=True)
class Miss:
    """A problem that the oracle fails on: rendered, its program in tokens (empty: it has none), and its answer."""

    problem: str
    program: str
    answer: Any
    target: Any


class Rate(Protocol):
    """What is needed of a figure."""

    @property
    def successes(self) -> int: ...
    @property
    def problems(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def how(self) -> str: ...


class Shared(Protocol):
    """What is needed of an overlap."""

    @property
    def shared(self) -> int: ...


def judge(
    task: AnyTask, stage: int, figures: Mapping[str, Rate], overlap: Shared | None, misses: list[Miss]
) -> list[Finding]:
    """The findings of one stage."""
    name = task.spec.stages[stage]
    claimed = not task.spec.solvable or task.spec.solvable[stage]
    found = [*_oracle(name, claimed, figures.get("oracle"), misses)]
    if overlap is not None and overlap.shared:
        words = f"{overlap.shared:,} problems are in both splits, train and heldout"
        found.append(Finding("defect", name, words, "Let a problem's key alone decide its split: `in_split`."))
    for agent, (words, remedy) in FLOORS.items():
        figure = figures.get(agent)
        if figure is None or figure.rate < WARNING:
            continue
        how = f": {figure.how}" if figure.how else ""
        level: Level = "defect" if figure.rate >= DEFECT else "warning"
        found.append(Finding(level, name, f"{words} on {figure.rate:.1%} of the problems{how}", remedy))
    memoryless = figures.get("memoryless")
    if memoryless is not None and memoryless.rate >= DEFECT:
        words = f"a network without memory succeeds on {memoryless.rate:.1%} of the problems"
        found.append(Finding("note", name, words, "The stage does not measure memory inside the network."))
    return found


def _oracle(name: str, claimed: bool, figure: Rate | None, misses: list[Miss]) -> Iterator[Finding]:
    if figure is None or figure.successes == figure.problems:
        return
    missed = f"{figure.problems - figure.successes:,} of {figure.problems:,} problems"
    if not claimed:
        yield Finding("note", name, f"the oracle fails on {missed}, and spec.solvable says that it may")
        return
    wrong, unreached = [m for m in misses if m.program], [m for m in misses if not m.program]
    if wrong:
        first = wrong[0]
        answer = "gives no answer" if first.answer is None else f"answers {first.answer}"
        yield Finding(
            "defect",
            name,
            f"the oracle fails on {missed}. Counterexample: {first.problem}; its program {first.program} {answer}, "
            f"the target is {first.target}",
            "Mend the oracle, or the verifier if the program is right.",
        )
    if unreached:
        examples = "; ".join(f"{miss.problem} (target {miss.target})" for miss in unreached)
        yield Finding(
            "defect",
            name,
            f"the oracle fails on {missed}, and has no program at all for some, such as {examples}",
            "Nobody can reach them: draw only problems with a solution, or say in spec.solvable that some have none.",
        )
