"""What the terminal shows of a machine's figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from modelnative.bench.machine import machine
from modelnative.bench.measure import Bench, Solution
from modelnative.bench.profile import Operation
from modelnative.bench.training import Rate
from modelnative.studio.tables import table

TOP = 20  # operations of a profile that are shown


def figures(measured: Bench) -> Iterator[RenderableType]:
    """Everything that was measured, and what it was measured on."""
    config, policy = measured.config, measured.config.policy
    yield Text(
        f"{config.task}, {config.algorithm}, {config.core} of width {policy.width}, {config.curriculum}: "
        f"{config.episodes:,} episodes in {config.loss.minibatches} minibatches, epochs: {config.loss.epochs}",
        "bold",
    )
    yield rates(measured)
    yield from remarks(measured)
    if measured.solved:
        yield solutions(measured.solved)
        yield summary(measured.solved)


def rates(measured: Bench) -> Table:
    """A row a measurement: the median, the range, and the share of the ceiling of the same cores."""
    counts = list(dict.fromkeys(rate.processes for rate in measured.rates))
    numbers = [
        column
        for count in counts
        for column in ("1 process" if count == 1 else f"{count} processes", "range", "of ceiling")
    ]
    shown = table("measured", "unit", *numbers)
    for column in shown.columns[2:]:
        column.justify = "right"
    for name in dict.fromkeys(rate.name for rate in measured.rates):
        found = [measured.rate(name, count) for count in counts]
        unit = next(rate.unit for rate in measured.rates if rate.name == name)
        cells = []
        for count, rate in zip(counts, found, strict=True):
            share = measured.share(name, count)
            cells += [number(rate), spread(rate), "" if share is None else f"{share:.1%}"]
        shown.add_row(Text(name, "bold"), unit, *cells)
    return shown


def number(rate: Rate | None) -> str:
    """The median, as precisely as it can be known."""
    return "" if rate is None else digits(rate.median)


def spread(rate: Rate | None) -> str:
    """The range."""
    return "" if rate is None else "–".join(map(digits, rate.spread))


def digits(value: float) -> str:
    """Three significant digits: nobody can measure more.

    Example:
        >>> digits(8_833_525), digits(231_234.5), digits(81), digits(0.1234)
        ('8.83M', '231k', '81.0', '0.123')
    """
    if value < 0.9995:
        return f"{value:.3f}"
    size, unit = next((size, unit) for size, unit in ((1e6, "M"), (1e3, "k"), (1, "")) if value >= 0.9995 * size)
    scaled = value / size
    return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"


def remarks(measured: Bench) -> Iterator[str]:
    """What the table leaves open."""
    count = measured.processes
    ceiling = measured.ceiling(count)
    beside = ""
    if count > 1:
        others = [r for r in measured.rates if r.name == ceiling.name and r.processes * r.threads == count]
        slower = min(others, key=lambda rate: rate.median)
        beside = f"; {digits(slower.median)} with {workers(slower)}"
    for rate in measured.rates:
        if rate.threads > 1 and rate.unit == "steps/s":
            share = measured.share(rate.name, rate.processes, rate.threads)
            of = "" if share is None else f", {share:.1%} of the ceiling"
            yield f"threads   {rate.name} {digits(rate.median)} steps/s ({spread(rate)}) with {workers(rate)}{of}"
    yield f"ceiling   {digits(ceiling.median)} GFLOP/s with {workers(ceiling)}{beside}"
    work = measured.flops
    if work is None:
        yield f"work      not counted for the core {measured.config.core}, so that there is no share of the ceiling"
    else:
        yield "work      " + ", ".join(f"{part} {flops:,}" for part, flops in work.items()) + " FLOP a step"
    for memory in measured.memory:
        if memory.peak:
            each = "1 process" if memory.processes == 1 else f"{memory.processes} processes together"
            yield f"memory    {memory.peak / 2**20:,.0f} MiB at most, {each}"
    for rate in measured.rates:
        if rate.compile_seconds:
            yield f"compiling {rate.compile_seconds:.1f} s, with warming up, {workers(rate)}"
    for note in measured.notes:
        yield f"missing   {note}"
    here = machine()
    yield f"machine   {here['cores']} cores, {here['processor']}, Python {here['python']}, torch {here['torch']}"
    yield f"kernels   {here['kernels']}"


def workers(rate: Rate) -> str:
    """Who measured it."""
    processes = "1 process" if rate.processes == 1 else f"{rate.processes} processes"
    return f"{processes} of {rate.threads} thread{'s' if rate.threads > 1 else ''}"


def solutions(solved: Sequence[Solution]) -> Table:
    """A row a seed."""
    shown = table("seed", "seconds", "updates", "verdict", right=("seed", "seconds", "updates"))
    for one in solved:
        style = None if one.solved else "yellow"
        shown.add_row(str(one.seed), f"{one.seconds:.1f}", f"{one.updates:,}", one.line, style=style)
    return shown


def summary(solved: Sequence[Solution]) -> str:
    """All seeds in a line."""
    seconds = [one.seconds for one in solved]
    right, median = sum(one.solved for one in solved), statistics.median(seconds)
    return f"solved    {right} of {len(solved)} seeds, median {median:.1f} s ({min(seconds):.1f}–{max(seconds):.1f})"


def profile(operations: Sequence[Operation]) -> Iterator[RenderableType]:
    """The most expensive operations, and how much the others come to."""
    total = sum(operation.seconds for operation in operations)
    yield Text(f"One update, 1 thread: {1000 * total:,.1f} ms in {len(operations)} kinds of operation", "bold")
    numbers = ("calls", "ms", "share", "so far")
    shown = table("operation", *numbers, right=numbers)
    so_far = 0.0
    for operation in operations[:TOP]:
        so_far += operation.share
        shown.add_row(
            Text(operation.name, "bold"),
            f"{operation.calls:,.0f}",
            f"{1000 * operation.seconds:,.1f}",
            f"{operation.share:.1%}",
            f"{so_far:.1%}",
        )
    yield shown
    if len(operations) > TOP:
        yield f"{len(operations) - TOP} others: {1 - so_far:.1%}. Times are without those of operations called within."
