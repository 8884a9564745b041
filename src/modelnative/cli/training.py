"""Commands that train: `train` and `resume`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modelnative.cli.fields import read_configured
from modelnative.cli.parser import Parser

TRAIN = """\
The defaults below are the recipe for the chosen --task, --core, --algorithm and --curriculum; name those before
--help to see theirs. Ctrl-C stops the training; `modelnative resume RUN` continues it bit for bit. The exit code is
0 whether or not every problem was solved; the last lines and RUN/result.json tell.
"""


def train(arguments: Sequence[str]) -> int:
    """`modelnative train`."""
    parser = Parser("train", TRAIN)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the run folder, which must not exist (default: a new one in runs/)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="train N seeds (--seed and those after it), each in a process of one thread, as many at a time as cores",
    )
    found, config = read_configured(parser, arguments, {})
    from modelnative import api

    if found.seeds is not None and found.seeds != 1:
        return watch_sweep(lambda view: api.train(config=config, out=found.out, seeds=found.seeds, callbacks=[view]))
    return watch_run(lambda view: api.train(config=config, out=found.out, callbacks=[view]))


def resume(arguments: Sequence[str]) -> int:
    """`modelnative resume`."""
    parser = Parser("resume")
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run folder, or that of a sweep or of train --seeds")
    parser.add_argument(
        "--updates", type=int, metavar="N", help="train to N updates in all; extends a finished run, too"
    )
    parser.add_argument("--minutes", type=float, metavar="M", help="train to M minutes in all (0 = no limit)")
    found = parser.read(arguments)
    folder, budget = found.folder, {"updates": found.updates, "minutes": found.minutes}
    from modelnative import api
    from modelnative.sweeps.folder import Sweep

    if Sweep.exists(folder):
        return watch_sweep(lambda view: api.resume(folder, callbacks=[view], **budget))
    return watch_run(lambda view: api.resume(folder, callbacks=[view], **budget))


def watch_run(start: Callable[[Any], Any]) -> int:
    """Follow a training on the terminal, to its end or to the signal that stops it; with torchrun, rank 0 does."""
    from modelnative.studio import tables
    from modelnative.studio.live import LiveView

    is_leader = os.environ.get("RANK", "0") == "0"
    with LiveView() as view:
        try:
            finished = start(view)
        except KeyboardInterrupt:
            view.close()
            if is_leader:
                print(view.interrupt_message(), flush=True)
            return 128 + view.signal
    for line in tables.finished(finished) if is_leader else []:
        print(line)
    return 0


def watch_sweep(start: Callable[[Any], Any], dry_run: bool = False) -> int:
    """Follow a sweep on the terminal; returns the exit code."""
    from modelnative.studio import sweep as pictures
    from modelnative.studio import tables

    console = tables.console()
    with pictures.SweepView(console) as view:
        try:
            result = start(view)
        except KeyboardInterrupt:
            view.close()
            print(view.interrupt_message(), flush=True)
            return 128 + view.signal
    if dry_run:
        console.print(pictures.plan_table(result.sweep))
        print(f"{len(result.rows)} trials, to be written to {result.sweep.path}; nothing was written or trained")
        return 0
    for part in pictures.final_report(result.sweep, result.rows):
        console.print(part, soft_wrap=isinstance(part, str))
    return 1 if result.failed else 0
