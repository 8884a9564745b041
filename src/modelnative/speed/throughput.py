"""Repeated measurements of one rate."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Throughput:
    """Repeated measurements of one rate.

    Attributes:
        name: what was measured.
        unit: of the rates, `steps/s` or `GFLOP/s`.
        processes, threads: number of processes, and of threads in each; the rates are those of all processes together.
        rates: one for each repetition.
        compile_seconds: time that `torch.compile` took before; 0 in eager mode.
    """

    name: str
    unit: str
    processes: int
    threads: int
    rates: tuple[float, ...]
    compile_seconds: float = 0.0

    @property
    def median(self) -> float:
        """The median rate."""
        return statistics.median(self.rates)

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest rate."""
        return min(self.rates), max(self.rates)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the median and the range."""
        return {**vars(self), "median": self.median, "low": min(self.rates), "high": max(self.rates)}
