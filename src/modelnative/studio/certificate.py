"""Certificates as a table in the terminal, or as a section of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from modelnative.evidence.certificate import Certificate, StageCertificate, SuccessRate
from modelnative.evidence.evaluate import Evaluation, Reference, floor, interval
from modelnative.evidence.findings import DEFECT, WARNING
from modelnative.evidence.notebook import markdown as as_markdown
from modelnative.studio.tables import Fitted, table

# Headings of the columns, and the agents of each; a column shows the best of its agents.
COLUMNS = {
    "oracle": ("oracle",),
    "random": ("random",),
    "does nothing": ("end", "start"),
    "always the commonest answer": ("same_answer",),
    "best fixed program": ("constant",),
    "best procedure": ("procedure",),
    "memoryless": ("memoryless",),
    "blind": ("blind",),
}
MAY_SUCCEED = ("oracle", "best procedure")
MISSING = "–"
STYLES = {"defect": "bold red", "warning": "yellow", "note": "dim"}
LEGEND = (
    "Success rate of each agent. Rates with an interval (95%, Wilson) are sampled, others are exact counts; "
    f"≥: a better agent may exist; {MISSING}: not measured."
)


def page(certificate: Certificate) -> Iterator[RenderableType]:
    """Table, details, findings and conclusion."""
    yield Text(title(certificate), "bold")
    yield _table(certificate)
    yield Text(LEGEND, "dim")
    yield ""
    yield from map(Text, details(certificate))  # as text, because brackets would be markup
    yield ""
    for finding in certificate.findings:
        yield Text(finding.line(), STYLES[finding.level])
    yield Text(conclusion(certificate), "bold")


def _table(certificate: Certificate) -> Fitted:
    """One row for each stage; where the terminal is too narrow for that, one for each agent."""
    numbers = ("problems", *COLUMNS, "overlap")
    wide, narrow = table("stage", *numbers, right=numbers), table("stage", "", "success", right=("success",))
    for stage in certificate.stages:
        wide.add_row(*_row(stage, "\n"))
        name, *cells = _row(stage, " ")
        for heading, cell in zip(numbers, cells, strict=True):
            narrow.add_row(name if heading == numbers[0] else "", heading, cell)
    return Fitted(wide, narrow)


def comparison(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Success of a trained agent beside that of the oracle and of agents that should fail; a column for each stage."""
    if not evaluation.floors:
        return
    stages = list(evaluation.floors)
    shown = table("success", *stages, right=tuple(stages))
    for split in dict.fromkeys(count.split for count in evaluation.counts):
        name = "held-out" if split == "heldout" else split
        own = [floor(evaluation.total(stage, split).rate) for stage in stages]
        shown.add_row(f"this agent, {name}", *own, style="bold")
    for name, agents in COLUMNS.items():
        cells = []
        for stage in stages:
            measured = [evaluation.floors[stage][agent] for agent in agents if agent in evaluation.floors[stage]]
            best = max(measured, key=lambda reference: reference.rate, default=None)
            cells.append(_cell(best, name not in MAY_SUCCEED, " "))
        if any(cell.plain != MISSING for cell in cells):
            shown.add_row(name, *cells)
    yield ""
    yield shown
    yield Text(LEGEND, "dim")


def markdown(certificate: Certificate) -> str:
    """A section of Markdown: the table of the terminal, and a list of details and findings."""
    header, rows = grid(certificate)
    marks = ["---", *["---:"] * (len(header) - 1)]
    table = [header, marks, *([as_markdown(name), *cells] for name, *cells in rows)]
    lines = [f"## {as_markdown(title(certificate))}", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    lines += [f"- {as_markdown(line)}" for line in details(certificate)]
    lines += [f"- **{f.level}** {as_markdown(f.line().removeprefix(f'{f.level}: '))}" for f in certificate.findings]
    return "\n".join([*lines, "", conclusion(certificate)])


def grid(certificate: Certificate) -> tuple[list[str], list[list[str]]]:
    """The table: its head, and a row for each stage."""
    header = ["stage", "problems", *COLUMNS, "overlap"]
    return header, [[cell.plain for cell in _row(stage, " ")] for stage in certificate.stages]


def title(certificate: Certificate) -> str:
    """The task and its options."""
    options = " ".join(f"{name}={value}" for name, value in certificate.options.items())
    return f"{certificate.task}{f' ({options})' if options else ''}"


def conclusion(certificate: Certificate) -> str:
    """The last line: whether the task is certified."""
    duration = f"{certificate.seconds:.0f} s"
    if certificate.interrupted:
        return f"Interrupted after {duration}: missing rates were not measured."
    levels = Counter(finding.level for finding in certificate.findings)
    counted = {level: f"{n} {level}{'s' if n > 1 else ''}" for level, n in levels.items()}
    if "defect" in counted:
        return f"Not certified: {counted['defect']} ({duration})."
    found = f"no defect{', ' + counted['warning'] if 'warning' in counted else ''} ({duration})"
    if not certificate.conclusive:
        return f"Inconclusive: {found}, but a network had too few updates to learn; give more --seconds."
    return f"Certified: {found}."


def _row(stage: StageCertificate, separator: str) -> list[Text]:
    """The cells of a stage; a rate and its interval are separated."""
    cells = [Text(stage.stage, "bold"), Text(f"{'' if stage.listed else 'of many '}{stage.problems:,}")]
    for name, agents in COLUMNS.items():
        rates = [stage.figures[agent] for agent in agents if agent in stage.figures]
        best = max(rates, key=lambda rate: rate.rate, default=None)
        cells.append(_cell(best, name not in MAY_SUCCEED, separator))
    overlap = MISSING
    if stage.overlap is not None:
        overlap = f"{stage.overlap.shared:,}{'' if stage.overlap.exact else ' (sampled)'}"
    return [*cells, Text(overlap)]


def _cell(rate: SuccessRate | Reference | None, should_fail: bool, separator: str) -> Text:
    if rate is None:
        return Text(MISSING)
    text = f"{'' if rate.best else '≥ '}{floor(rate.rate)}"
    if rate.interval is not None:
        text += separator + interval(*rate.interval)
    level = "defect" if rate.rate >= DEFECT else "warning" if rate.rate >= WARNING else "note"
    return Text(text, STYLES[level] if should_fail and level != "note" else "", justify="right")


def details(certificate: Certificate) -> Iterator[str]:
    """The programs, and how the networks were trained."""
    for stage in certificate.stages:
        for name, agents in COLUMNS.items():
            for agent in agents:
                if agent in stage.figures and stage.figures[agent].how:
                    yield f"{stage.stage} {name}: {stage.figures[agent].how}"
