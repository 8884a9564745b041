"""Check the bridges against the packages that are installed here, and write the table of what was run.

    make conformance                                   everything: a virtual environment for each group of packages
    python benchmarks/conformance.py --groups verl     one of the groups, in its environment
    python benchmarks/conformance.py                   what is installed here
    python benchmarks/conformance.py --only trl --slow

A check is a function with the decorator `check` in a file of `conformance_checks`: it returns what was found, or
raises. A new check needs nothing else. Results are kept in `conformance.jsonl`, a line for each check, which is written
when the check ends; the table in `docs/results/conformance.md` is made of them. A check that fails, and a group that
cannot be installed or that is cut off, is a line of the table, too; the exit code is then 1.
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
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "conformance_checks")]

from conformance_environments import GROUPS, prepare, run_checks  # noqa: E402  # they lie beside this file
from conformance_registry import CHECKS, Check  # noqa: E402

RESULTS, PAGE = HERE / "conformance.jsonl", HERE.parent / "docs" / "results" / "conformance.md"
INSTALLED, FINISHED = TROUBLES = ("its environment is installed", "its checks run to their end")  # only if not so


def load() -> None:
    """Import the files with checks, which add them to the registry."""
    for file in sorted((HERE / "conformance_checks").glob("check_*.py")):
        importlib.import_module(file.stem)


def run(chosen: Sequence[Check]) -> Iterator[dict[str, Any]]:
    """Run checks; yield a line for each when it ends."""
    for number, one in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {one.package} {version(one.package)}: {one.what}", flush=True)
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result, passed = one.run(), True
        except Exception as error:  # noqa: BLE001  # any failure is a result
            traceback.print_exc()
            result, passed = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:200]}", False
        seconds = time.perf_counter() - started
        print(f"    {result} ({seconds:.1f} s)", flush=True)
        yield line_of(one.package, one.what, result, passed, seconds, version(one.package))


def line_of(package: str, what: str, result: str, passed: bool, seconds: float, release: str = "") -> dict[str, Any]:
    """A line of the results."""
    return {
        "package": package,
        "version": release,
        "what": what,
        "result": result,
        "passed": passed,
        "seconds": round(seconds, 1),
        "python": platform.python_version(),
        "torch": version("torch"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def kept() -> list[dict[str, Any]]:
    """The lines so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def keep(new: Sequence[dict[str, Any]], drop: Sequence[tuple[str, str]] = ()) -> None:
    """Put new lines in the place of older ones of the same check, and write the page.

    Lines of checks that are gone are dropped, and those that `drop` names by package and description.
    """
    merged = {(line["package"], line["what"]): line for line in [*kept(), *new]}
    order = [(one.package, one.what) for one in CHECKS] + [(name, what) for name in GROUPS for what in TROUBLES]
    lines = [merged[key] for key in order if key in merged and key not in drop]
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines))
    PAGE.write_text(page(lines))


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The page of the documentation."""
    rows = [
        f"| {line['package']} {line['version']}".rstrip()
        + f" | {line['what']} | {line['result']} | {line['seconds']:g} |"
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


def run_groups(names: Sequence[str], options: list[str]) -> bool:
    """Run the checks of groups, each in its environment; return whether all passed. One that fails stops no other."""
    passed = True
    for number, name in enumerate(names, 1):

        def say(text: str, place: str = f"{number}/{len(names)}") -> None:
            print(f"[group {place}] {text}", flush=True)

        started, trouble, text = time.perf_counter(), INSTALLED, ""
        try:
            python = prepare(name, say) if GROUPS[name].extras else Path(sys.executable)
            trouble, code = FINISHED, run_checks(name, python, options)
            failed = any(not line["passed"] for line in kept() if line["package"] in GROUPS[name].packages)
            if code and not failed:
                text = f"exit code {code}, although no check failed"
            passed &= code == 0
        except OSError as error:
            text = str(error)
        if text:
            say(f"{name}: FAILED: {text}")
            keep([line_of(name, trouble, f"FAILED: {text}", False, time.perf_counter() - started)])
            passed = False
        keep([], drop=[(name, what) for what in TROUBLES if not text or what != trouble])
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--groups", nargs="+", choices=["all", *GROUPS], help="run groups, each in its environment")
    parser.add_argument("--only", nargs="*", default=[], help="packages")
    parser.add_argument("--skip", nargs="*", default=[], help="packages")
    parser.add_argument("--match", default="", metavar="TEXT", help="only checks whose description has this text")
    parser.add_argument("--slow", action="store_true", help="also what takes minutes")
    parser.add_argument("--list", action="store_true", help="list the checks and run none")
    given = parser.parse_args()
    load()
    if given.groups:
        options = ["--slow"] * given.slow + ["--match", given.match] * bool(given.match)
        return 0 if run_groups(list(GROUPS) if "all" in given.groups else given.groups, options) else 1
    chosen = [
        one
        for one in CHECKS
        if (not given.only or one.package in given.only)
        and one.package not in given.skip
        and given.match in one.what
        and (given.slow or not one.slow)
        and importlib.util.find_spec(one.module.partition(".")[0])
    ]
    if not chosen:
        print("No check was chosen: --list shows those of the packages that are installed here.", file=sys.stderr)
        return 1
    if given.list:
        print("\n".join(f"{one.package}: {one.what}" for one in chosen))
        return 0
    torch.set_num_threads(1)  # more are slower for batches of one
    passed = True
    for line in run(chosen):
        keep([line])
        passed &= line["passed"]
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
