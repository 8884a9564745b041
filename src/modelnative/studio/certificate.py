"""A certificate as a table in the terminal or as a section of a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from modelnative.evidence.certificate import Certificate, StageCertificate, SuccessRate
from modelnative.evidence.evaluate import floor
from modelnative.evidence.findings import DEFECT, WARNING
from modelnative.studio.tables import table

# Column by column: its heading and the agents that it shows the best of.
COLUMNS = {
    "oracle": ("oracle",),
    "random": ("random",),
    "does nothing": ("end", "start"),
    "commonest answer": ("same_answer",),
    "best fixed program": ("constant",),
    "memoryless": ("memoryless",),
    "blind": ("blind",),
}
HEADINGS = {agent: heading for heading, agents in COLUMNS.items() for agent in agents}
MISSING = "–"
STYLES = {"defect": "bold red", "warning": "yellow", "note": "dim"}
LEGEND = (
    "Success of each agent. A figure with an interval (95%, Wilson) is sampled, one without is an exact count; "
    f"≥: a better one may exist; {MISSING}: not measured."
)


def page(certificate: Certificate) -> Iterator[RenderableType]:
    """Table, programs, findings, verdict."""
    yield Text(title(certificate), "bold")
    yield _table(certificate)
    yield Text(LEGEND, "dim")
    yield ""
    yield from map(Text, _details(certificate))  # as Text, because brackets would be read as markup
    yield ""
    for finding in certificate.findings:
        yield Text(finding.line(), STYLES[finding.level])
    yield Text(verdict(certificate), "bold")


def _table(certificate: Certificate) -> Table:
    numbers = ("problems", *COLUMNS, "overlap")
    shown = table("stage", *numbers, right=numbers)
    for stage in certificate.stages:
        cells = [_cell(figure, name != "oracle", "\n") for name, figure in _figures(stage).items()]
        shown.add_row(Text(stage.stage, "bold"), _problems(stage), *cells, _overlap(stage))
    return shown


def markdown(certificate: Certificate) -> str:
    """The same as a section of a page.

    The table's columns are those of the terminal; every detail and finding is an item of a list.
    """
    header = ["stage", "problems", *COLUMNS, "overlap"]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for stage in certificate.stages:
        cells = [_cell(figure, name != "oracle", " ").plain for name, figure in _figures(stage).items()]
        rows.append([stage.stage, _problems(stage), *cells, _overlap(stage)])
    lines = [f"## {title(certificate)}", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    lines += [f"- {_escaped(line)}" for line in _details(certificate)]
    lines += [f"- **{f.level}** {_escaped(f.line().removeprefix(f'{f.level}: '))}" for f in certificate.findings]
    return "\n".join([*lines, "", verdict(certificate)])


def title(certificate: Certificate) -> str:
    """The task and its options."""
    options = " ".join(f"{name}={value}" for name, value in certificate.options.items())
    return f"{certificate.task}{f' ({options})' if options else ''}"


def verdict(certificate: Certificate) -> str:
    """The last line."""
    took = f"{certificate.seconds:.0f} s"
    if certificate.interrupted:
        return f"Interrupted after {took}: what is missing was not measured."
    defects = sum(finding.level == "defect" for finding in certificate.findings)
    if defects:
        return f"Not certified: {defects} {'defect' if defects == 1 else 'defects'} ({took})."
    warnings = sum(finding.level == "warning" for finding in certificate.findings)
    also = f", {warnings} {'warning' if warnings == 1 else 'warnings'}" if warnings else ""
    return f"Certified: no defect{also} ({took})."


def _figures(stage: StageCertificate) -> dict[str, SuccessRate | None]:
    """By column, the best of its agents."""
    found = {
        name: [stage.figures[agent] for agent in agents if agent in stage.figures] for name, agents in COLUMNS.items()
    }
    return {name: max(figures, key=lambda f: f.rate, default=None) for name, figures in found.items()}


def _cell(figure: SuccessRate | None, ought_to_fail: bool, between: str) -> Text:
    if figure is None:
        return Text(MISSING)
    text = f"{'' if figure.best else '≥ '}{floor(figure.rate)}"
    if figure.interval is not None:
        low, high = figure.interval
        # The figure is rounded down, and must not end up below its interval.
        text += f"{between}[{min(f'{low:.3f}', floor(figure.rate))}, {high:.3f}]"
    level = "defect" if figure.rate >= DEFECT else "warning" if figure.rate >= WARNING else "note"
    return Text(text, STYLES[level] if ought_to_fail and level != "note" else "", justify="right")


def _problems(stage: StageCertificate) -> str:
    return f"{'' if stage.listed else 'of many '}{stage.problems:,}"


def _overlap(stage: StageCertificate) -> str:
    if stage.overlap is None:
        return MISSING
    return f"{stage.overlap.shared:,}{'' if stage.overlap.exact else ' (sampled)'}"


def _details(certificate: Certificate) -> Iterator[str]:
    """The program or the training of each agent."""
    for stage in certificate.stages:
        for name in ("same_answer", "constant", "memoryless", "blind"):
            if name in stage.figures:
                yield f"{stage.stage} {HEADINGS.get(name, name)}: {stage.figures[name].how}"


def _escaped(text: str) -> str:
    """Text with the characters escaped that Markdown would interpret."""
    return "".join(f"\\{c}" if c in "\\*_`<>[]|#" else c for c in text)
