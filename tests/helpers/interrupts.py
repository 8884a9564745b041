"""Trains once undisturbed, then once for each case, disturbed at one of its writes, and resumes until it is finished.

A case is (how, place). `place` counts the calls that write: opening, writing, flushing, renaming and removing a file,
making a folder; for `callback` it counts events. Both the training and its first continuation are disturbed; what
follows is not. All trainings are forks of this process, so torch is imported only once.

Usage: interrupts.py FOLDER PLACES HOW...; one case for every PLACESth place, with each HOW in turn if PLACES is more
than 1, else with all of them. Prints a JSON line for each case: how, place, the ends of its processes.
"""

from __future__ import annotations

import builtins
import errno
import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from modelnative.api import training as api
from modelnative.runs import files
from modelnative.runs.run import Run
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

FIELDS = {
    "task": "worlds:Small",
    "updates": 5,
    "episodes": 16,
    "checkpoint_every": 2,
    "evaluate_every": 2,
    "threads": 1,
    "policy": {"width": 8},
    "loss": {"minibatches": 2},
}
SIGNALS = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM, "hangup": signal.SIGHUP}
SAFE = ("interrupt", "terminate", "hangup", "callback")  # ways to end a training that lose not even an update


class Disturbance:
    """Counts writes, and does something at one of them."""

    def __init__(self, how: str, place: int) -> None:
        self.how, self.place, self.count = how, place, 0

    def reached(self, halfway: Callable[[], object] = lambda: None) -> None:
        """A write is about to happen; `halfway` does a part of it."""
        self.count += 1
        if self.how == "full" and self.count >= self.place:
            halfway()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.count != self.place:
            return
        if self.how == "kill":
            halfway()
            os._exit(9)
        if self.how == "fail once":
            halfway()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.how in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.how])

    def wrap(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*values: Any, **named: Any) -> Any:
            self.reached()
            return real(*values, **named)

        setattr(owner, name, call)

    def install(self) -> None:
        for owner, name in ((os, "fsync"), (os, "replace"), (Path, "unlink"), (Path, "mkdir")):
            self.wrap(owner, name)
        files.open = self.open  # type: ignore[attr-defined]

    def open(self, path: Path, mode: str, **named: Any) -> Any:
        self.reached()
        file: Any = builtins.open(path, mode, **named)  # noqa: SIM115
        write = file.write

        def torn(content: bytes) -> int:
            self.reached(lambda: (write(content[: len(content) // 2]), file.flush()))
            return int(write(content))

        return Torn(file, torn)

    def __call__(self, event: Any) -> None:
        """As a callback."""
        if self.how == "callback":
            self.count += 1
            if self.count == self.place:
                raise ZeroDivisionError("of a callback")


class Torn:
    """A file whose `write` is replaced."""

    def __init__(self, file: Any, write: Callable[[bytes], int]) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def train(path: Path, disturbance: Disturbance | None) -> None:
    """Begin or continue, as a user would."""
    callbacks = []
    if disturbance is not None:
        disturbance.install()
        callbacks.append(disturbance)
    if (path / "config.json").exists():
        api.resume(path, callbacks=callbacks)
    else:
        api.train(config=with_fields(recipe(), FIELDS), out=path, callbacks=callbacks)


def fork(work: Callable[[], object]) -> str:
    """Do the work in a process of its own; returns how that ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
            os.write(writer, f"{type(error).__name__}: {error} {traceback.format_exc()[-1500:]}".encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        words = said.read().decode()
    _, status = os.waitpid(child, 0)
    return "" if status == 0 else words or f"status {status}"


def case(path: Path, how: str, place: int) -> list[str]:
    """How the processes of a disturbed training ended, but for the last, which finished it."""
    ends: list[str] = []
    while not ((path / "result.json").exists() and (path / "report.html").exists()):
        disturbed = Disturbance(how, place) if len(ends) < 2 else None
        ends.append(fork(lambda disturbed=disturbed: train(path, disturbed)))
        assert len(ends) < 3 or not ends[-1], f"{how} at {place}: {ends}"
        if how in SAFE and len(ends) == 1 and (path / "metrics.jsonl").exists():
            run, lines = Run.open(path), len((path / "metrics.jsonl").read_bytes().splitlines())
            assert int(run.checkpoints()[-1].stem) == lines, f"{how} at {place}: updates are lost, {ends}"
    return ends


def main() -> None:
    torch.set_num_threads(1)
    for number in SIGNALS.values():
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    api.write_report = lambda run: files.write(run.report_path, b"report")  # type: ignore[assignment,attr-defined,return-value]
    folder, step, ways = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    counts = folder / "counts"
    train(folder / "first", None)  # what is slow only the first time is inherited by all others

    def whole() -> None:
        counting = Disturbance("count", 0)
        train(folder / "whole", counting)
        counts.write_text(str(counting.count))

    assert not (end := fork(whole)), end
    places = range(1, int(counts.read_text()) + 1, step)
    cases = (
        list(zip(itertools.cycle(ways), places, strict=False)) if step > 1 else list(itertools.product(ways, places))
    )
    for how, place in cases:
        ends = case(folder / f"{how} at {place}", how, place)
        print(json.dumps({"how": how, "place": place, "ends": ends}), flush=True)


if __name__ == "__main__":
    main()
