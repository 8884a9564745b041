"""Learning curves of a file that grows: read once, in memory of a fixed size."""

from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path
from typing import Any

POINTS = 800  # of a curve at least, once it has as many updates; at most twice as many
BLOCK = 1 << 20  # bytes that are read at once
LONGEST = 1 << 22  # bytes of a line; a longer one is damaged
STAGES = 64  # of which curves are kept
SINGLE = ("entropy", "approximate_kl", "clip_fraction", "explained_variance", "gradient_norm", "invalid", "mean_return")


class Curves:
    """Reads what was appended to a file of metrics since it was last asked.

    Lines that are not the metrics of an update are counted and skipped; a line that is not finished is left for the
    next time. Updates are averaged in equal groups, which double when there are `2 * POINTS` of them.

    Args:
        path: of the file, which may be missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.epoch = 0  # counts what makes points change that a reader has already: a merge, another file
        self._forget()

    def _forget(self) -> None:
        self.epoch += 1
        self.damaged, self.size = 0, 1
        self.last: dict[str, Any] = {}
        self.groups: list[Group] = []
        self._offset, self._rest, self._file, self._skipping = 0, b"", (0, 0), False

    def refresh(self) -> None:
        """Read the lines that are new. A file that was replaced or cut is read again."""
        with self.lock:
            try:
                with open(self.path, "rb") as file:
                    stat = os.fstat(file.fileno())
                    if (stat.st_dev, stat.st_ino) != self._file or stat.st_size < self._offset:
                        self._forget()
                        self._file = (stat.st_dev, stat.st_ino)
                    file.seek(self._offset)
                    while block := file.read(BLOCK):
                        self._offset += len(block)
                        self._read(block)
            except OSError:
                if self._file != (0, 0):
                    self._forget()

    def _read(self, block: bytes) -> None:
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
            elif line:
                self._add(line)
        if len(self._rest) > LONGEST:
            self.damaged += not self._skipping
            self._rest, self._skipping = b"", True

    def _add(self, line: bytes) -> None:
        try:
            metrics = json.loads(line)
            values = numbers(metrics)
        except (ValueError, TypeError, AttributeError, RecursionError):
            self.damaged += 1
            return
        if not self.groups or self.groups[-1].count >= self.size:
            if len(self.groups) >= 2 * POINTS:
                pairs = zip(self.groups[::2], self.groups[1::2], strict=True)
                self.groups = [a.joined(b) for a, b in pairs]
                self.size *= 2
                self.epoch += 1
            self.groups.append(Group())
        self.groups[-1].add(values)
        self.last = metrics

    def points(self, start: int = 0) -> dict[str, list[float | None]]:
        """The points from a number on, by series; `update` is among them."""
        groups = self.groups[start:]
        names = dict.fromkeys(name for group in groups for name in group.sums)
        return {name: [group.mean(name) for group in groups] for name in names}


class Group:
    """Means of the numbers of neighboring updates."""

    __slots__ = ("count", "sums")

    def __init__(self) -> None:
        self.count = 0
        self.sums: dict[str, tuple[float, int]] = {}

    def add(self, values: dict[str, float]) -> None:
        """Count one more update."""
        self.count += 1
        for name, value in values.items():
            total, n = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, n + 1)

    def joined(self, other: Group) -> Group:
        """Both groups as one."""
        self.count += other.count
        for name, (more, m) in other.sums.items():
            total, n = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + more, n + m)
        return self

    def mean(self, name: str) -> float | None:
        """The mean of one series; None where it was never measured."""
        total, n = self.sums.get(name, (0.0, 0))
        return float(f"{total / n:.5g}") if n else None


def numbers(metrics: Any) -> dict[str, float]:
    """The numbers of an update that have a curve, without those that were not measured.

    Raises:
        ValueError, TypeError, AttributeError: it is not the metrics of an update.
    """
    found = {"update": metrics["update"], **{name: metrics.get(name) for name in SINGLE}}
    found["speed"] = metrics.get("timing", {}).get("steps_per_second")
    found |= {f"success {s}": value for s, value in enumerate(metrics.get("success", [])[:STAGES])}
    if not isinstance(found["update"], int):
        raise TypeError("update")
    return {n: float(v) for n, v in found.items() if isinstance(v, int | float) and math.isfinite(v)}
