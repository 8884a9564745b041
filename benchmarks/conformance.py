"""Check the bridges against the packages that are installed here, and write the table of what was run.

    make conformance                          a virtual environment for each group of packages, one after the other
    python benchmarks/conformance.py          what is installed here
    python benchmarks/conformance.py --only trl --slow

A check is a function with the decorator `check` in a file of `conformance_checks`: it returns what was found, or
raises. A new check needs nothing else. Results are kept in `conformance.jsonl`, a line for each check; the table in
`docs/results/conformance.md` is made of them. A check that fails is a line of the table, too; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "conformance_checks")]

from conformance_registry import CHECKS, Check  # noqa: E402  # it lies beside this file

RESULTS, PAGE = HERE / "conformance.jsonl", HERE.parent / "docs" / "results" / "conformance.md"


def load() -> None:
    """Import the files with checks, which add them to the registry."""
    for file in sorted((HERE / "conformance_checks").glob("check_*.py")):
        importlib.import_module(file.stem)


def run(chosen: Sequence[Check]) -> list[dict[str, Any]]:
    """Run checks; return a line for each."""
    lines = []
    for one in chosen:
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result, passed = one.run(), True
        except Exception as error:  # noqa: BLE001  # any failure is a result
            traceback.print_exc()
            result, passed = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:200]}", False
        line = {
            "package": one.package,
            "version": version(one.package),
            "what": one.what,
            "result": result,
            "passed": passed,
            "seconds": round(time.perf_counter() - started, 1),
            "python": platform.python_version(),
            "torch": version("torch"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        print(f"{one.package} {line['version']}: {one.what}\n  {result} ({line['seconds']} s)", flush=True)
        lines.append(line)
    return lines


def kept(new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put new lines in the place of older ones of the same check; drop those of checks that are gone."""
    old = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    merged = {(line["package"], line["what"]): line for line in [*old, *new]}
    order = [(one.package, one.what) for one in CHECKS]
    return [merged[key] for key in order if key in merged]


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The page of the documentation."""
    rows = [
        f"| {line['package']} {line['version']} | {line['what']} | {line['result']} | {line['seconds']:g} |"
        for line in lines
    ]
    machines = sorted({f"{line['machine']}, Python {line['python']}, torch {line['torch']}" for line in lines})
    return "\n".join(
        [
            "# Conformance",
            "",
            "What the bridges were run against. `make conformance` makes a virtual environment for each group of",
            "packages that can be installed together, runs `benchmarks/conformance.py` in each, and writes this page.",
            "A check that fails is shown as `FAILED`.",
            "",
            "| package | what was run | result | seconds |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Machine: {'; '.join(machines)}. Seconds are of a machine that other work shared.",
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="packages")
    parser.add_argument("--skip", nargs="*", default=[], help="packages")
    parser.add_argument("--match", default="", metavar="TEXT", help="only checks whose description has this text")
    parser.add_argument("--slow", action="store_true", help="also what takes minutes")
    parser.add_argument("--list", action="store_true", help="list the checks and run none")
    given = parser.parse_args()
    load()
    chosen = [
        one
        for one in CHECKS
        if (not given.only or one.package in given.only)
        and one.package not in given.skip
        and given.match in one.what
        and (given.slow or not one.slow)
        and importlib.util.find_spec(one.module.partition(".")[0])
    ]
    if given.list:
        print("\n".join(f"{one.package}: {one.what}" for one in chosen))
        return 0
    torch.set_num_threads(1)  # more are slower for batches of one
    new = run(chosen)
    lines = kept(new)
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines))
    PAGE.write_text(page(lines))
    return 0 if all(line["passed"] for line in new) else 1


if __name__ == "__main__":
    sys.exit(main())
