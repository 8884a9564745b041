"""The command `sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelnative.cli.parser import Parser
from modelnative.cli.training import watch_sweep
from modelnative.errors import UserError

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
    from modelnative import api

    options = {name: getattr(found, name) for name in ("jobs", "retries", "on", "address", "dry_run")}
    if found.spec is None:
        return watch_sweep(lambda view: api.resume(found.resume, callbacks=[view], **options), found.dry_run)
    return watch_sweep(lambda view: api.sweep(found.spec, found.out, callbacks=[view], **options), found.dry_run)
