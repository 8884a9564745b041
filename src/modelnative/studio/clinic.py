"""The table of `modelnative clinic`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from modelnative.evidence.clinic import Diagnosis
from modelnative.evidence.faults import CASES
from modelnative.studio.tables import Fitted, table
from modelnative.training.audit import CHECKS


def page(found: Sequence[Diagnosis]) -> Iterator[RenderableType]:
    """A row for every case and seed, what was missed or falsely alarmed, and the conclusion."""
    curves = any(each.curves for each in found)
    headings = ("seed", "first alarm", "reading", "healthy", "sick", *(["healthy reaches", "sick reaches"] * curves))
    wide = table("case", *headings, right=("seed", "healthy", "sick"))
    narrow = table("case", "", "", right=())
    for each in found:
        alarm = "missed" if each.update is None else f"update {each.update}"
        cells = [str(each.seed), alarm, each.check, _number(each.healthy), _number(each.sick)]
        cells += [_rates(each.curves[twin]) for twin in ("healthy", "sick")] if each.curves else []
        style = "" if each.passed else "bold red"
        wide.add_row(each.case, *cells, style=style)
        for heading, cell in zip(headings, cells, strict=True):
            narrow.add_row(each.case if heading == headings[0] else "", heading, cell, style=style)
    yield Fitted(wide, narrow)
    for each in found:
        for alarm in each.false_alarms:
            yield Text(f"false alarm in the healthy twin of {each.case}, seed {each.seed}: {alarm}", "bold red")
    shown = list(dict.fromkeys(each.case for each in found))
    for name in shown if len(shown) < len(CASES) else []:
        case = CASES[name]
        yield Text(f"{name}: {case.fault}. Reports: {case.reports}. Remedy: {CHECKS[case.checks[0]].remedy}")
    passed = sum(each.passed for each in found)
    yield Text(f"{passed} of {len(found)} seen by update 2, with no alarm in the healthy twin", "bold")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}"


def _rates(rates: Sequence[float]) -> str:
    return " ".join(f"{rate:.3f}" for rate in rates)
