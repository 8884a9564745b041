"""The command `bench`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import modelnative as mn
from modelnative.cli.fields import read_configured
from modelnative.cli.parser import Parser, print_json, report
from modelnative.errors import UserError

BENCH = """\
Steps per second of environment, rollout, update and training, and the fastest float32 matrix product of the policy's
width. A step is one action of a running episode. Everything is measured in one process with one thread, then in
--processes that train one policy together; shown are the median and the range of repetitions. It takes about a
minute. The training is a recipe with a large batch, one epoch and no hints; --episodes, --policy.width and all other
flags of `modelnative train` change it. Progress goes to standard error, so that --json > FILE holds JSON alone.
"""


def bench(arguments: Sequence[str]) -> int:
    """`modelnative bench`."""
    parser = Parser("bench", BENCH)
    add = parser.add_argument
    add("--seconds", type=float, default=5.0, help="for each measurement (default: 5)")
    add("--processes", type=int, metavar="N", help="that train together (default: one a core, or OMP_NUM_THREADS)")
    add("--compile", dest="compiled", action="store_true", help="measure the environment under torch.compile, too")
    add("--solve", type=int, default=0, metavar="N", help="then train N seeds of the recipe until all is solved")
    add("--profile", action="store_true", help="show the most expensive operations of an update instead")
    add("--json", action="store_true", help="print JSON instead of a table")
    from modelnative.training.recipes import BENCH as USUAL

    found, config = read_configured(parser, arguments, USUAL)
    for name, value in (("solve", found.solve), ("compile", found.compiled), ("processes", found.processes)):
        if found.profile and value:
            raise UserError(f"--{name}: not allowed beside --profile, which shows one process alone")
    from modelnative.studio import bench as pictures
    from modelnative.studio import tables

    if found.profile:
        operations = mn.profile(config)
        values: object = [dataclasses.asdict(operation) for operation in operations]
        parts = pictures.profile(operations)
    else:
        how = {name: getattr(found, name) for name in ("seconds", "processes", "compiled", "solve")}
        measured = mn.bench(config, **how, progress=report)
        values = {"modelnative": mn.__version__, **measured.as_dict()}
        parts = pictures.page(measured)
    if found.json:
        print_json(values)
        return 0
    tables.show(parts)
    return 0
