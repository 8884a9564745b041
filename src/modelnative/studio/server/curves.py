"""Learning curves of a file that grows: read once, in memory of a fixed size, and a long one not all at once."""

from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path
from typing import Any, BinaryIO

POINTS = 800  # of a curve at least, once it has as many updates; at most twice as many
BLOCK = 1 << 20  # bytes that are read at once
STRIDE = 1 << 21  # bytes that one look reads; of a file with more than that left, a preview is shown meanwhile
PREVIEW = 800  # lines of a preview
AROUND = 1 << 16  # bytes in which a line of a preview ends
LONGEST = 1 << 22  # bytes of a line; a longer one is damaged
ERRORS = (ValueError, TypeError, LookupError, AttributeError, RecursionError)  # of a line that is no update's metrics
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
        self.preview: list[Group] = []
        self._offset, self._rest, self._file, self._skipping = 0, b"", (0, 0), False
        self._new = True

    def refresh(self) -> bool:
        """Read a stride of the lines that are new. A file that was replaced or cut is read again.

        Returns:
            Whether more is left to be read.
        """
        with self.lock:
            try:
                with open(self.path, "rb") as file:
                    return self._refresh(file)
            except OSError:
                if self._file != (0, 0):
                    self._forget()
                return False

    def _refresh(self, file: BinaryIO) -> bool:
        stat = os.fstat(file.fileno())
        if (stat.st_dev, stat.st_ino) != self._file or stat.st_size < self._offset:
            self._forget()
            self._file = (stat.st_dev, stat.st_ino)
        if self._new and stat.st_size > STRIDE:
            self._new = False
            self.preview = _preview(file, stat.st_size)
            return True
        self._new = False
        file.seek(self._offset)
        end = self._offset + STRIDE
        while self._offset < end and (block := file.read(min(BLOCK, end - self._offset))):
            self._offset += len(block)
            self._read(block)
        more = self._offset < stat.st_size
        if self.preview and not more:
            self.preview = []
            self.epoch += 1
        return more

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
        except ERRORS:
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

    @property
    def shown(self) -> list[Group]:
        """The groups that `points` are of."""
        return self.preview or self.groups

    def points(self, start: int = 0) -> dict[str, list[float | None]]:
        """The points from a number on, by series; `update` is among them."""
        groups = self.shown[start:]
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


def _preview(file: BinaryIO, size: int) -> list[Group]:
    """Single updates from equally distant places of a file, and its last one; damaged lines are left out."""
    found: dict[float, Group] = {}

    def keep(line: bytes) -> bool:
        try:
            values = numbers(json.loads(line)) if line.endswith(b"\n") else {}
        except ERRORS:
            return False
        if values:
            found[values["update"]] = group = Group()
            group.add(values)
        return bool(values)

    for place in range(PREVIEW):
        file.seek(size * place // PREVIEW)
        if place:
            file.readline(AROUND)  # the rest of a line
        keep(file.readline(AROUND))
    file.seek(max(0, size - AROUND))
    any(keep(line) for line in reversed(file.read(AROUND).splitlines(keepends=True)[1:]))
    return [found[update] for update in sorted(found)]


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
