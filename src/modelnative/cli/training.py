"""Commands that train: `train`, `resume` and `sweep`; and `schema`, for the files that they read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import modelnative as mn
from modelnative.cli.fields import read_configured
from modelnative.cli.parser import Parser, print_json
from modelnative.errors import UserError
from modelnative.training.config import TrainConfig
from modelnative.training.launcher import launch

TRAIN = """\
The defaults below are the recipe for the chosen --task, --core, --algorithm and --curriculum; name those before
--help to see theirs. Ctrl-C stops the training; `modelnative resume RUN` continues it bit for bit. The exit code is
0 whether or not every problem was solved; the last lines and RUN/result.json tell.
"""

SWEEP = """\
Each trial is a process of its own. SPEC is TOML or JSON: fields for all trials under [base], lists of values to try
under [grid], and seeds:

    seeds = 10
    [base]
    updates = 200
    [grid]
    algorithm = ["ppo", "grpo"]
    policy.width = [32, 64]

trains 40 trials. Whatever is killed, a trial or the sweep, loses nothing: a trial that dies is tried again from its
newest checkpoint, and the same command continues an interrupted sweep without repeating what is finished. The folder
then has results.csv, one row for each trial, and comparison.svg. Exit code 1: a trial failed for good.
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

    if found.seeds is not None and found.seeds != 1:
        return watch_sweep(lambda view: mn.train(config=config, out=found.out, seeds=found.seeds, callbacks=[view]))
    return watch_run(lambda view: mn.train(config=config, out=found.out, callbacks=[view]))


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
    from modelnative.sweeps.folder import Sweep

    if Sweep.exists(folder):
        return watch_sweep(lambda view: mn.resume(folder, callbacks=[view], **budget))
    return watch_run(lambda view: mn.resume(folder, callbacks=[view], **budget))


def sweep(arguments: Sequence[str]) -> int:
    """`modelnative sweep`."""
    parser = Parser("sweep", SWEEP)
    add = parser.add_argument
    add("spec", type=Path, nargs="?", metavar="SPEC", help="what to try; not needed with --resume")
    add("--out", type=Path, metavar="FOLDER", help="the sweep's folder (default: sweeps/NAME); a sweep there continues")
    add("--resume", type=Path, metavar="FOLDER", help="continue the sweep in this folder, without its SPEC")
    add("--dry-run", action="store_true", help="check everything and show the trials; train and write nothing")
    add("--jobs", type=int, metavar="N", help="trials at a time (default: as many as the cores have threads for)")
    add("--retries", type=int, metavar="N", default=2, help="how often a trial that dies is tried again (default: 2)")
    add("--on", default="auto", metavar="PLACE", help="local, ray, or auto: Ray where the extra is installed")
    add("--address", help="a Ray cluster: HOST:PORT, or auto for the one here (default: start one for the sweep)")
    found = parser.read(arguments)
    if found.spec is None and found.resume is None:
        parser.error("the following arguments are required: SPEC, or --resume FOLDER")
    for name, value in (("SPEC", found.spec), ("--out", found.out)):
        if found.resume is not None and value is not None:
            raise UserError(f"{name}: '{value}' is not allowed beside --resume; the folder has everything")

    options = {name: getattr(found, name) for name in ("jobs", "retries", "on", "address", "dry_run")}
    if found.spec is None:
        return watch_sweep(lambda view: mn.resume(found.resume, callbacks=[view], **options), found.dry_run)
    return watch_sweep(lambda view: mn.sweep(found.spec, found.out, callbacks=[view], **options), found.dry_run)


def schema(arguments: Sequence[str]) -> int:
    """`modelnative schema`."""
    parser = Parser("schema", "Name it in the editor's settings to complete and check the fields of --config files.")
    parser.add_argument("kind", nargs="?", default="train", choices=("train", "sweep"), help="default: train")
    kind = parser.read(arguments).kind
    if kind == "train":
        print_json(TrainConfig.model_json_schema())
    else:
        from modelnative.sweeps.spec import sweep_schema

        print_json(sweep_schema())
    return 0


def watch_run(start: Callable[[Any], Any]) -> int:
    """Follow a training on the terminal, to its end or to the signal that stops it; with torchrun, rank 0 does."""
    from modelnative.studio import tables
    from modelnative.studio.live import LiveView

    is_leader = launch().rank == 0
    finished = _watched(LiveView(), start, is_leader)
    for line in tables.finished(finished) if is_leader else []:
        print(line)
    return 0


def watch_sweep(start: Callable[[Any], Any], dry_run: bool = False) -> int:
    """Follow a sweep on the terminal; returns the exit code."""
    from modelnative.studio import sweep as pictures
    from modelnative.studio import tables

    console = tables.console()
    result = _watched(pictures.SweepView(console), start)
    if dry_run:
        console.print(pictures.plan_table(result.sweep))
        print(f"{len(result.rows)} trials, to be written to {result.sweep.path}; nothing was written or trained")
        return 0
    for part in pictures.final_report(result.sweep, result.rows):
        console.print(part, soft_wrap=isinstance(part, str))
    return 1 if result.failed else 0


def _watched(view: Any, start: Callable[[Any], Any], is_leader: bool = True) -> Any:
    """What `start` returns; a signal that stops it is the exit code."""
    with view:
        try:
            return start(view)
        except KeyboardInterrupt:
            view.close()
            if is_leader:
                print(view.interrupt_message(), flush=True)
            sys.exit(128 + view.signal)
