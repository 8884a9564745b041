"""What `certify` returns: the success rates of every agent, and findings about the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from modelnative.evidence.evaluate import floor
from modelnative.evidence.notebook import html_table
from modelnative.evidence.record import Record
from modelnative.evidence.statistics import wilson

AGENTS = ("oracle", "random", "end", "start", "same_answer", "constant", "procedure", "memoryless", "blind")

Level = Literal["defect", "warning", "note"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class SuccessRate:
    """The successes of one agent on one stage.

    Attributes:
        successes, problems: successes among the problems that the agent played.
        exact: every problem was played and nothing was random; otherwise `interval` is the 95% interval.
        best: whether no agent of this kind does better (constant: the search was exact). If not, the rate is a lower
            bound.
        how: details, such as the program, the search or the training.
        conclusive: False for a network that fails and had too few updates to learn: its rate shows nothing.
    """

    successes: int
    problems: int
    exact: bool
    best: bool = True
    how: str = ""
    conclusive: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.problems or not self.problems:
            raise ValueError(f"{self.successes} of {self.problems} is no success rate")

    @property
    def rate(self) -> float:
        """Successes divided by problems."""
        return self.successes / self.problems

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% Wilson interval of the rate, or None where the count is exact."""
        return None if self.exact else wilson(self.successes, self.problems)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "rate": self.rate, "interval": self.interval}


@dataclass(frozen=True)
class SplitOverlap:
    """Problems (by key) that are in both splits; `exact` if both splits were listed completely."""

    shared: int
    train: int
    heldout: int
    exact: bool


@dataclass(frozen=True)
class Finding:
    """A fact about a task that its author should know.

    Attributes:
        level: defect (the task fails its certificate), warning, or note.
        stage: the stage's name, or None if the finding is about the whole task.
        words: the fact.
        remedy: what to do about it.
    """

    level: Level
    stage: str | None
    words: str
    remedy: str = ""

    def line(self) -> str:
        """The finding in one line.

        Example:
            >>> Finding("warning", "T0", "random play succeeds on 30%", "Require more.").line()
            'warning: T0: random play succeeds on 30%. Require more.'
        """
        where = f"{self.stage}: " if self.stage else ""
        return f"{self.level}: {where}{self.words.rstrip('.')}. {self.remedy}".rstrip()


@dataclass(frozen=True)
class StageCertificate(Record):
    """What was measured on one stage.

    Attributes:
        stage: its name.
        problems: number of problems that were examined.
        listed: whether these are all problems of the stage.
        figures: success rates by the names in `AGENTS`; agents that were not measured are missing.
        overlap: of the splits, or None if it was not measured.
    """

    stage: str
    problems: int
    listed: bool
    figures: dict[str, SuccessRate]
    overlap: SplitOverlap | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; an agent that was not measured is None."""
        found = super().as_dict()
        figures = found.pop("figures")
        return {**found, **{name: figures.get(name) for name in AGENTS}}


@dataclass(frozen=True)
class Certificate(Record):
    """The result of `certify`.

    Attributes:
        task, options: the task's name and options.
        stages: the stages that were measured.
        findings: facts about the task, the most severe first.
        seconds: duration of the measurement.
        interrupted: Ctrl-C was pressed before everything was measured.
    """

    task: str
    options: dict[str, Any]
    stages: tuple[StageCertificate, ...]
    findings: tuple[Finding, ...]
    seconds: float
    interrupted: bool

    @property
    def sound(self) -> bool:
        """Whether no defect was found."""
        return not any(finding.level == "defect" for finding in self.findings)

    @property
    def conclusive(self) -> bool:
        """Whether every network that was trained had enough updates to learn."""
        return all(figure.conclusive for stage in self.stages for figure in stage.figures.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**super().as_dict(), "sound": self.sound, "conclusive": self.conclusive}

    @classmethod
    def of(cls, found: dict[str, Any]) -> Certificate:
        """The inverse of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError: it is not what `as_dict` returns.
        """
        stages = [{**s, "figures": {n: s[n] for n in AGENTS if s[n] is not None}} for s in found["stages"]]
        return TypeAdapter(cls).validate_python({**found, "stages": stages})

    def _repr_html_(self) -> str:
        names = [name for name in AGENTS if any(name in stage.figures for stage in self.stages)]
        rows = []
        for stage in self.stages:
            figures = [stage.figures.get(name) for name in names]
            rates = ["–" if f is None else f"{'' if f.best else '≥ '}{floor(f.rate)}" for f in figures]
            rows.append([stage.stage, f"{stage.problems:,}", *rates])
        head = ["stage", "problems", *(name.replace("_", " ") for name in names)]
        after = [*(finding.line() for finding in self.findings), "Sound." if self.sound else "There is a defect."]
        return html_table(f"certificate of {self.task}", head, rows, after)
