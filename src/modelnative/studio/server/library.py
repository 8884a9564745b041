"""The runs in a folder: found, summarized, and never left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modelnative.errors import UserError, shown
from modelnative.runs.files import read_json
from modelnative.sweeps.folder import tail

MOST = 5000  # runs that are listed
DEPTH = 8  # folders below the root in which runs are looked for
LARGEST = 1 << 24  # bytes of a JSON file
TAIL = 1 << 17  # bytes in which the last line of the metrics is looked for
FRESH = 60.0  # seconds after its last line for which a run counts as training
COPIED = 5.0  # seconds by which a file of a copied folder may be newer than one that was written after it
TEXT = 200  # characters of a name that are shown
FIELDS = ("task", "core", "algorithm", "curriculum", "seed")
FILES = (
    "config.json",
    "metrics.jsonl",
    "result.json",
    "task.json",
    "report.html",
    "alarms.jsonl",
    "weights.safetensors",
    "inspect.json",
    "certificate.json",
)


class GoneError(UserError):
    """There is no such run, or no longer."""


@dataclass
class Library:
    """The runs in a folder.

    Args:
        root: the folder.
    """

    root: Path

    def __post_init__(self) -> None:
        self.root = self.root.resolve()
        self._known: dict[str, tuple[Any, dict[str, Any]]] = {}

    def folders(self, file: str = "config.json") -> Iterator[tuple[str, Path]]:
        """The names and folders of the runs, or of what else has a file of this name. Links are not followed."""
        found = 0
        for place, folders, files in os.walk(self.root):
            depth = len(Path(place).relative_to(self.root).parts)
            if file in files:
                yield Path(place).relative_to(self.root).as_posix(), Path(place)
                found += 1
                if found >= MOST:
                    return
            if "config.json" in files:
                folders.clear()
            folders[:] = sorted(f for f in folders if not f.startswith(".")) if depth < DEPTH else []

    def inside(self, name: str) -> Path:
        """The place of a name below the root, whether or not something is there.

        Raises:
            GoneError: it is not below the root.
        """
        parts = PurePosixPath(name).parts
        path = self.root.joinpath(*parts)
        try:
            allowed = "\0" not in name and ".." not in parts and not PurePosixPath(name).is_absolute()
            if allowed and path.resolve().is_relative_to(self.root):
                return path
        except (OSError, ValueError):  # such as a name that no file can have
            pass
        raise GoneError(f"run: {shown(name)} is not in this folder")

    def folder(self, name: str, file: str = "config.json") -> Path:
        """The folder of a run, or of what else has a file of this name.

        Raises:
            GoneError: there is none of this name below the root, or one of its files is a link that leads elsewhere.
        """
        path = self.inside(name)
        if not (path / file).is_file():
            raise GoneError(f"run: {shown(name)} is gone: its folder was deleted or moved")
        for one in (path / file, *(path / other for other in FILES), *path.glob("checkpoints/*")):
            self._require_inside(one)
        return path

    def _require_inside(self, file: Path) -> None:
        if (file.is_symlink() or file.parent.is_symlink()) and not file.resolve().is_relative_to(self.root):
            raise GoneError(f"{file.name}: a link that leads out of the folder; it is not followed")

    def summaries(self) -> list[dict[str, Any]]:
        """What the list of runs shows; a damaged run says so under `problem`."""
        names = [name for name, _ in self.folders()]
        listed = [self.one(name) for name in names]
        self._known = {name: self._known[name] for name in names if name in self._known}
        return listed

    def sweeps(self) -> list[dict[str, Any]]:
        """The sweeps: their names, how many trials they have, and how many of these are finished."""
        listed = []
        for name, path in self.folders("sweep.json"):
            inside = (path / "trials").resolve().is_relative_to(self.root)
            trials = list(path.glob("trials/*/config.json")) if inside else []
            done = sum((file.parent / "result.json").is_file() for file in trials)
            listed.append(
                {"id": name, "begun": len(trials), "finished": done, "changed": _stamp(path / "sweep.json")[0]}
            )
        return listed

    def one(self, name: str) -> dict[str, Any]:
        """The summary of one run, and its state."""
        stamps = tuple(_stamp(self.root / name / file) for file in ("config.json", "metrics.jsonl", "result.json"))
        stamp, summary = self._known.get(name, (None, {}))
        if stamp != stamps:
            summary = self.summary(name)
            self._known[name] = (stamps, summary)
        return {**summary, "state": _state(summary, stamps)}

    def summary(self, name: str) -> dict[str, Any]:
        """One run: its configuration, its last update, its verdict; without its state, which depends on the time."""
        summary: dict[str, Any] = {"id": name, "problem": "", "update": 0, "success": [], "rate": None}
        try:
            path = self.folder(name)
            config = bounded_json(path / "config.json")
            if not isinstance(config, dict):
                raise UserError("config.json: not a configuration")
            summary |= {field: str(config.get(field, ""))[:TEXT] for field in FIELDS}
            last = last_line(path / "metrics.jsonl")
            summary["update"] = last["update"] if isinstance(last.get("update"), int) else 0
            summary["success"] = _shares(last.get("success"))
            if (path / "result.json").is_file():
                summary["rate"] = _rate(bounded_json(path / "result.json"))
        except (UserError, OSError) as error:
            summary["problem"] = str(error)[: 2 * TEXT].replace(f"{self.root}{os.sep}", "")
        summary["changed"] = max(_stamp(self.root / name / file)[0] for file in FILES)
        return summary

    def stages(self, path: Path) -> list[str]:
        """The names of a run's stages, as far as its files tell without its task."""
        try:
            found = bounded_json(path / "task.json")["spec"]["stages"]
            return [str(stage)[:TEXT] for stage in found]
        except (UserError, LookupError, TypeError):
            return []


def bounded_json(path: Path) -> Any:
    """The content of a JSON file that is not absurdly large.

    Raises:
        UserError: it is missing, too large, no plain file, or not JSON.
    """
    _require_plain(path)
    if _stamp(path)[1] > LARGEST:
        raise UserError(f"{path}: larger than {LARGEST >> 20} MiB; not read")
    return read_json(path)


def _require_plain(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a plain file")


def last_line(path: Path) -> dict[str, Any]:
    """The last complete line of a file of metrics; empty if there is none that can be read.

    Raises:
        UserError: no plain file.
    """
    _require_plain(path)
    for line in reversed(tail(path, TAIL)[:-1]):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _stamp(path: Path) -> tuple[float, int]:
    """When a file was last written, in seconds, and its size; zeros for a missing one."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return 0.0, 0
    return stat.st_mtime, stat.st_size


def _state(summary: dict[str, Any], stamps: tuple[tuple[float, int], ...]) -> str:
    _, (metrics, _), (result, _) = stamps
    if summary["problem"]:
        return "damaged"
    if result and result + COPIED >= metrics:
        return "finished"
    return "training" if time.time() - max(metrics, stamps[0][0]) < FRESH else "stopped"


def _shares(values: Any) -> list[float | None]:
    listed = values[:64] if isinstance(values, list) else []
    return [float(v) if isinstance(v, int | float) and 0 <= v <= 1 else None for v in listed]


def _rate(result: Any) -> float | None:
    """The share of problems that were solved greedily."""
    try:
        counts = result["evaluation"]["counts"]
        solved, played = sum(c["successes"] for c in counts), sum(c["problems"] for c in counts)
        return round(solved / played, 6) if played and 0 <= solved <= played else None
    except (LookupError, TypeError, ArithmeticError):
        return None
