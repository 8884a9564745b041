"""What is inside an agent, in the terminal and in the report; from what `modelnative inspect` writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from modelnative.evidence.carriers import LEAST
from modelnative.evidence.evaluate import floor, interval
from modelnative.evidence.verdicts import ranges
from modelnative.studio.tables import table

MISSING = "–"
STYLES = {"carried": "bold", "shared": "yellow", "not carried": "dim", "not tested": "dim"}
LEGEND = (
    "Each carrier was exchanged between two problems before an action. Shown is the action at which the outcome "
    "followed it most, as shares of comparable pairs: with the donor's outcome, the agent's own, and the predicted one "
    "(of the donor's remaining actions, or of the agent's own on exchanged registers). noise: kept its own outcome "
    "under noise of the same size. n: the next action instead of the answer. carried: at least 0.9 follow; shared: "
    "some; not carried: at most 0.1, or no more than by noise."
)
UNITS_LEGEND = (
    "Success of each stage without the units that one stage needs most: so many that it loses half of its success. In "
    "brackets, without as many random units (median of 5 sets). *: it loses 0.1 more than that, so it shares them. A "
    "unit is removed by its mean over problems and actions."
)
Cells = dict[str, Any]


def page(found: Cells) -> Iterator[RenderableType]:
    """Two tables and a few sentences for each stage; then the units that stages share, if that was asked for."""
    for stage in found["stages"]:
        yield Text(f"{found['task']} {stage['stage']}, {found['pairs']} pairs of problems", "bold")
        yield exchanges(stage)
        yield removals(stage)
        for sentence in stage["words"]:
            yield Text(sentence)
        yield ""
    yield Text(LEGEND, "dim")
    if found.get("sharing"):
        yield ""
        yield units(found["sharing"])
        yield Text(UNITS_LEGEND, "dim")


def exchanges(stage: Cells) -> Table:
    """One row for each carrier: its strongest exchange, and the verdict."""
    numbers = ("at", "pairs", "donor's", "own", "pred.", "noise")
    shown = table("exchanged", *numbers, "verdict", right=numbers)
    for verdict in stage["verdicts"]:
        shown.add_row(verdict["carrier"], *_strongest(verdict.get("strongest")), _verdict(verdict, stage["keys"]))
    return shown


def _strongest(outcome: Cells | None) -> list[str]:
    if outcome is None:
        return [MISSING] * 6
    key = f"{outcome['key']}{'' if outcome['in'] == 'answer' else ' n'}"
    shares = [rate(outcome[name]) for name in ("donor", "own", "predicted", "noise")]
    return [key, str(outcome["comparable"]["hits"]), *shares]


def _verdict(verdict: Cells, keys: list[int]) -> Text:
    where = f" at {ranges(verdict['keys'], keys)}" if verdict["keys"] else ""
    return Text(verdict["verdict"] + where, STYLES[verdict["verdict"]])


def removals(stage: Cells) -> Table:
    """Success without something at every action."""
    shown = table("without", "success", "95% interval", right=("success", "95% interval"))
    for removal in stage["removals"]:
        success = removal["success"]
        shown.add_row(removal["name"], rate(success), interval(*success["interval"]))
    return shown


def units(needed: list[Cells]) -> Table:
    """A row for each stage: how many units it needs, and success of all stages without them."""
    names = tuple(stage["stage"] for stage in needed)
    shown = table("units that this stage needs", "removed", *names, right=("removed", *names))
    for stage in needed:
        cells = [stage["without"][name] for name in names]
        texts = [f"{rate(c['success'])} ({rate(c['random'])}){' *' if c['shared'] else ''}" for c in cells]
        shown.add_row(stage["stage"], str(stage["count"]), *texts)
    return shown


def rate(share: Cells | None) -> str:
    """The rate of a share, three decimals, rounded down."""
    return MISSING if share is None else floor(share["rate"])


# The report


@dataclass(frozen=True)
class HeatCell:
    """How many of the comparable pairs followed an exchange: the share, and all of it in words; None if not tested."""

    followed: float | None
    title: str


@dataclass(frozen=True)
class Section:
    """One stage in the report: a row of the heat map for each carrier, with its verdict; removals; sentences."""

    stage: str
    keys: tuple[int, ...]
    rows: tuple[tuple[str, str, tuple[HeatCell, ...]], ...]
    removals: tuple[tuple[str, str, str], ...]
    words: tuple[str, ...]


def sections(found: Cells) -> list[Section]:
    """What the report shows of the content of inspect.json."""
    return [_section(stage) for stage in found["stages"]]


def _section(stage: Cells) -> Section:
    keys = [int(key) for key in stage["keys"]]
    cells = {(e["carrier"], e["key"]): _heat(e) for e in stage["exchanges"]}
    untested = HeatCell(None, "the same in all problems")
    rows = tuple(
        (
            str(verdict["carrier"]),
            _verdict(verdict, keys).plain,
            tuple(cells.get((verdict["carrier"], key), untested) for key in keys),
        )
        for verdict in stage["verdicts"]
    )
    removed = tuple(
        (str(r["name"]), rate(r["success"]), interval(*r["success"]["interval"])) for r in stage["removals"]
    )
    return Section(str(stage["stage"]), tuple(keys), rows, removed, tuple(map(str, stage["words"])))


def _heat(exchange: Cells) -> HeatCell:
    """The outcome that followed most, of the answer and the next action."""
    shown: list[tuple[float, str]] = []
    for name, text in (("answer", "answer"), ("next_token", "next action")):
        outcome = exchange[name]
        if outcome is None:
            continue
        trials = {part: outcome[part]["trials"] for part in ("donor", "predicted")}
        followed = [outcome[part]["rate"] for part, count in trials.items() if count >= LEAST]
        if followed:
            shares = ", ".join(f"{part} {rate(outcome[part])}" for part in ("donor", "own", "predicted"))
            shown.append((max(followed), f"{text}: {shares} of {trials['donor']} pairs"))
    if not shown:
        return HeatCell(None, "too few comparable pairs")
    best = max(shown)
    return HeatCell(best[0], best[1])
