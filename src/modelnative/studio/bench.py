"""Tables of `modelnative bench`."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from modelnative.speed.machine import machine
from modelnative.speed.measure import BenchResult, TimeToSolution
from modelnative.speed.profile import ProfiledOperation
from modelnative.speed.throughput import Throughput
from modelnative.studio.tables import table

TOP = 20  # operations of a profile that are shown


def page(measured: BenchResult) -> Iterator[RenderableType]:
    """Everything that was measured, and the machine."""
    config, policy = measured.config, measured.config.policy
    yield Text(
        f"{config.task}, {config.algorithm}, {config.core} of width {policy.width}, {config.curriculum}: "
        f"{config.episodes:,} episodes in {config.loss.minibatches} minibatches, epochs: {config.loss.epochs}",
        "bold",
    )
    yield rates_table(measured)
    if measured.flops is not None:
        yield Text("% of matmul: % of this machine's matrix-multiply speed", "dim")
    yield from details(measured)
    if measured.solved:
        yield solutions_table(measured.solved)
        yield solutions_line(measured.solved)


def rates_table(measured: BenchResult) -> Table:
    """One row for each measurement: median, range, and share of the speed of a matrix product on the same cores."""
    counts = list(dict.fromkeys(rate.processes for rate in measured.rates))
    numbers = [column for count in counts for column in (_processes(count), "range", "% of matmul")]
    shown = table("measured", "unit", *numbers)
    for column in shown.columns[2:]:
        column.justify = "right"
    for name in dict.fromkeys(rate.name for rate in measured.rates):
        unit = next(rate.unit for rate in measured.rates if rate.name == name)
        cells = []
        for count in counts:
            rate, share = measured.rate(name, count), measured.utilization(name, count)
            cells += [rate_text(rate), range_text(rate), "" if share is None else f"{share:.1%}"]
        shown.add_row(Text(name, "bold"), unit, *cells)
    return shown


def rate_text(rate: Throughput | None) -> str:
    """The median with three significant digits."""
    return "" if rate is None else three_digits(rate.median)


def range_text(rate: Throughput | None) -> str:
    """The range with three significant digits."""
    return "" if rate is None else "–".join(map(three_digits, rate.range))


def three_digits(value: float) -> str:
    """Three significant digits; a measurement is not more precise.

    Example:
        >>> three_digits(8_833_525), three_digits(231_234.5), three_digits(81), three_digits(0.1234)
        ('8.83M', '231k', '81.0', '0.123')
    """
    if value < 0.9995:
        return f"{value:.3f}"
    size, unit = next((size, unit) for size, unit in ((1e6, "M"), (1e3, "k"), (1, "")) if value >= 0.9995 * size)
    scaled = value / size
    return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"


def details(measured: BenchResult) -> Iterator[str]:
    """Lines below the table: threads, matrix products, FLOP, memory, and the machine."""
    count = measured.processes
    for rate in measured.rates:
        if rate.threads > 1 and rate.unit == "steps/s":
            share = measured.utilization(rate.name, rate.processes, rate.threads)
            percent = "" if share is None else f", {share:.1%} of matmul"
            yield f"threads   {rate.name} {rate_text(rate)} steps/s ({range_text(rate)}) with {workers(rate)}{percent}"
    fastest = measured.matmul(count)
    other = ""
    if count > 1:
        products = [r for r in measured.rates if r.name == fastest.name and r.processes * r.threads == count]
        slowest = min(products, key=lambda rate: rate.median)
        other = f"; {rate_text(slowest)} with {workers(slowest)}"
    yield f"matmul    {rate_text(fastest)} GFLOP/s with {workers(fastest)}{other}"
    work = measured.flops
    if work is None:
        yield f"work      not counted for the core {measured.config.core}, so that % of matmul is not known"
    else:
        yield "work      " + ", ".join(f"{part} {flops:,}" for part, flops in work.items()) + " FLOP a step"
    for memory in measured.memory:
        if memory.peak:
            together = " together" if memory.processes > 1 else ""
            yield f"memory    {memory.peak / 2**20:,.0f} MiB at most, {_processes(memory.processes)}{together}"
    for rate in measured.rates:
        if rate.compile_seconds:
            yield f"compiling {rate.compile_seconds:.1f} s, including warm-up, {workers(rate)}"
    for note in measured.notes:
        yield f"missing   {note}"
    here = machine()
    yield f"machine   {here['cores']} cores, {here['processor']}, Python {here['python']}, torch {here['torch']}"
    yield f"kernels   {here['kernels']}"


def workers(rate: Throughput) -> str:
    """The processes and threads of a measurement."""
    return f"{_processes(rate.processes)} of {rate.threads} thread{'s' if rate.threads > 1 else ''}"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def solutions_table(solved: Sequence[TimeToSolution]) -> Table:
    """One row for each seed."""
    shown = table("seed", "seconds", "updates", "result", right=("seed", "seconds", "updates"))
    for one in solved:
        style = None if one.solved else "yellow"
        shown.add_row(str(one.seed), f"{one.seconds:.1f}", f"{one.updates:,}", one.line, style=style)
    return shown


def solutions_line(solved: Sequence[TimeToSolution]) -> str:
    """All seeds in one line."""
    seconds = [one.seconds for one in solved]
    right, median = sum(one.solved for one in solved), statistics.median(seconds)
    return f"solved    {right} of {len(solved)} seeds, median {median:.1f} s ({min(seconds):.1f}–{max(seconds):.1f})"


def profile(operations: Sequence[ProfiledOperation]) -> Iterator[RenderableType]:
    """The most expensive operations, and the sum of the others."""
    total = sum(operation.seconds for operation in operations)
    yield Text(f"One update, 1 thread: {1000 * total:,.1f} ms in {len(operations)} kinds of operation", "bold")
    numbers = ("calls", "ms", "share", "cumulative")
    shown = table("operation", *numbers, right=numbers)
    cumulative = 0.0
    for operation in operations[:TOP]:
        cumulative += operation.share
        shown.add_row(
            Text(operation.name, "bold"),
            f"{operation.calls:,.0f}",
            f"{1000 * operation.seconds:,.1f}",
            f"{operation.share:.1%}",
            f"{cumulative:.1%}",
        )
    yield shown
    if len(operations) > TOP:
        yield f"{len(operations) - TOP} others: {1 - cumulative:.1%}. Times exclude operations called within."
