"""The command `doctor`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from modelnative.cli.parser import Parser, print_json


def doctor(arguments: Sequence[str]) -> int:
    """`modelnative doctor`."""
    parser = Parser(
        "doctor", "The kernels are compiled if they were not yet. Put the output of --json into bug reports."
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a page")
    found = parser.read(arguments)
    from modelnative.studio.doctor import examine, lines  # needs no torch, unlike the public functions

    checks = examine()
    if found.json:
        print_json({check.name: {"value": check.value, "advice": check.advice} for check in checks})
    else:
        print(*lines(checks, shutil.get_terminal_size().columns), sep="\n")
    return 0
