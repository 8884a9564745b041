"""Groups of trainings side by side: a table for the terminal, and one plot."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from modelnative.evidence.comparison import Estimate
from modelnative.studio.figures import figures, saved
from modelnative.studio.tables import table
from modelnative.sweeps.comparison import THRESHOLDS, Comparison
from modelnative.sweeps.groups import RATES

COLORS = ("#5b7fd1", "#d1495b", "#2a9d8f", "#e9a23b", "#8e6bbf", "#6c757d")
MARKERS = "os^Dv*"  # groups differ in more than color


def page(found: Comparison) -> Iterator[RenderableType]:
    """The scores of all groups, each against the first, and the verdicts."""
    direction = "more" if found.metric in RATES else "less"
    yield Text(f"{found.metric} on {', '.join(found.tasks)} ({direction} is better)")
    columns = ["group", "trainings", "IQM", "95% interval"]
    if found.pairs:
        columns += ["better than the first", f"{100 * found.level:.3g}% interval"]
    shown = table(*columns)
    for place, (group, score) in enumerate(zip(found.groups, found.scores, strict=True)):
        row = [group.label, str(sum(len(group.scores[task]) for task in found.tasks)), number(score.value), span(score)]
        if found.pairs:
            better = found.pairs[place - 1].probability if place else None
            row += ["–", "–"] if better is None else [number(better.value), span(better)]
        shown.add_row(*map(Text, row))
    yield shown
    for pair in found.pairs:
        yield Text(f"{pair.label}: {pair.verdict}")
    for note in found.notes:
        yield Text(note)
    yield Text(
        "IQM: mean of the middle half of the trainings. Better than the first: probability that a training of this "
        "group beats one of the first group."
    )


def number(value: float) -> str:
    """A rate or a cost in at most four digits, or as many as its whole part has."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def span(found: Estimate) -> str:
    """The interval of an estimate."""
    return f"[{number(found.low)}, {number(found.high)}]"


def draw(found: Comparison, kind: str) -> bytes:
    """The plot: each training, each group's IQM with its interval; for rates, the performance profiles.

    Args:
        found: the comparison.
        kind: `svg` or `png`.
    """
    with figures({"font.size": 9}) as figure_class:
        figure = figure_class(figsize=(11, 2.2 + 0.45 * len(found.groups)), layout="constrained", dpi=120)
        left, *right = figure.subplots(1, 2 if found.profiles else 1, squeeze=False)[0]
        for place, (group, score) in enumerate(zip(found.groups, found.scores, strict=True)):
            color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
            for task in found.tasks:
                scores = group.scores[task]
                left.plot(scores, [place + 0.2] * len(scores), marker, color=color, alpha=0.5, markersize=4)
            left.plot([score.low, score.high], [place, place], color=color, linewidth=2)
            left.plot([score.value], [place], "|", color=color, markersize=12, markeredgewidth=2)
            for axes in right:
                values = found.profiles[place]
                axes.plot(THRESHOLDS, [each.value for each in values], color=color, label=group.label)
                low, high = [each.low for each in values], [each.high for each in values]
                axes.fill_between(THRESHOLDS, low, high, color=color, alpha=0.15, linewidth=0)
        left.set_yticks(range(len(found.groups)), [group.label for group in found.groups])
        left.set_ylim(len(found.groups) - 0.5, -0.5)
        left.set_title(f"{found.metric}: each training, IQM and its 95% interval", fontsize=9)
        for axes in right:
            axes.set_ylim(-0.02, 1.05)
            axes.set_title(f"share of trainings with {found.metric} above", fontsize=9)
            axes.legend(fontsize=8, frameon=False)
        for axes in (left, *right):
            axes.grid(alpha=0.2, linewidth=0.6)
        return saved(figure, kind, dpi=120)
