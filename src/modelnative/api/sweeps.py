"""Sweeps: many trainings from one specification."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modelnative.errors import in_words, require_path
from modelnative.runs.files import write, write_json
from modelnative.studio import comparison as pictures
from modelnative.studio.report import write_report, write_sweep_report
from modelnative.sweeps.comparison import Comparison, compare_groups
from modelnative.sweeps.events import SweepEvent, SweepFinished, SweepInterrupted
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.groups import read_groups
from modelnative.sweeps.options import SweepOptions, check_all, run_sweep
from modelnative.sweeps.results import Cell, Row, cells, read_row
from modelnative.sweeps.spec import parse_spec, read_spec

SweepCallback = Callable[[SweepEvent], None]


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """The result of a sweep: its folder, one row for each trial, and the rows grouped over seeds."""

    sweep: Sweep
    rows: tuple[Row, ...]

    @property
    def cells(self) -> list[Cell]:
        """The rows, grouped over seeds."""
        return cells(self.rows)

    @property
    def failed(self) -> list[Row]:
        """The trials without a result."""
        return [row for row in self.rows if row.status == "failed"]


def sweep(
    spec: str | Path | dict[str, Any],
    out: str | Path | None = None,
    *,
    jobs: int | None = None,
    retries: int = 2,
    on: str = "auto",
    address: str | None = None,
    dry_run: bool = False,
    callbacks: Sequence[SweepCallback] = (),
) -> SweepResult:
    """Train every trial of a sweep, each in a process of its own; what is finished already is not repeated.

    Args:
        spec: a TOML or JSON file, or what would stand in it.
        out: the sweep's folder, by default `sweeps/NAME`; if the sweep was begun there, it is continued.
        jobs: trials at a time; by default as many as there are cores for.
        retries: how often a trial that dies is tried again, from its newest checkpoint.
        on: `local` processes, `ray`, or `auto`: Ray where it is installed.
        address: of a Ray cluster; by default Ray runs on this machine.
        dry_run: check everything, and return the rows as they stand; train and write nothing.
        callbacks: each is called with every event, in order; see `modelnative.sweeps.events`.

    Raises:
        UserError: the spec or an argument is wrong, or the folder is another sweep's or cannot be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the same call continues.

    Example:
        >>> import modelnative as mn
        >>> swept = mn.sweep({"seeds": 10, "grid": {"algorithm": ["ppo", "grpo"]}})  # doctest: +SKIP
        >>> [(cell.label, cell.solved, cell.trials) for cell in swept.cells]  # doctest: +SKIP
        [('algorithm=ppo', 10, 10), ('algorithm=grpo', 10, 10)]
    """
    read = parse_spec(spec) if isinstance(spec, dict) else read_spec(Path(spec))
    planned = Sweep.planned(Path(out) if out is not None else Path("sweeps") / read.name, read)
    return follow_sweep(planned, SweepOptions(jobs, retries, on, address), dry_run, callbacks)


def follow_sweep(
    planned: Sweep, options: SweepOptions, dry_run: bool, callbacks: Sequence[SweepCallback]
) -> SweepResult:
    """Run a sweep to its end, with the reports as the first callback."""
    if dry_run:
        check_all(planned, options)
        return SweepResult(planned, tuple(read_row(planned, trial) for trial in planned.trials))
    report = f"{write_report.__module__}:{write_report.__name__}"
    with contextlib.closing(run_sweep(planned, options, report)) as events:
        for event in events:
            if isinstance(event, SweepFinished):
                _write_reports(event)
            for callback in callbacks:
                callback(event)
            if isinstance(event, SweepInterrupted):
                raise KeyboardInterrupt(f"resume with: {planned.resume_command}")
            if isinstance(event, SweepFinished):
                return SweepResult(planned, event.rows)
    raise AssertionError("a sweep ends with SweepFinished or SweepInterrupted")


def compare(
    *runs: str | Path, metric: str = "success", stage: str | None = None, out: str | Path | None = None
) -> Comparison:
    """Compare groups of trainings, with intervals over seeds; a difference is claimed only where they support it.

    Args:
        runs: folders of runs, of sweeps, or of `train(seeds=...)`. Runs that differ in more than seed and task are in
            different groups; each group is compared with the first.
        metric: `success`, `heldout` or `sampled` (rates), or `updates`, `episodes`, `steps` or `seconds`.
        stage: of the rates; by default the mean over stages.
        out: a folder for `comparison.json`, `comparison.svg` and `comparison.png`.

    Raises:
        UserError: a folder is not a run, or has no result; a group has a seed twice; no task is common to all groups.

    Example:
        >>> import modelnative as mn
        >>> found = mn.compare("runs/ppo-10-seeds", "runs/grpo-10-seeds", metric="updates")  # doctest: +SKIP
        >>> found.pairs[0].verdict  # doctest: +SKIP
        'worse than runs/ppo-10-seeds'
    """
    for field, path in (*(("runs", run) for run in runs), *([] if out is None else [("out", out)])):
        require_path(field, Path(path))
    found = compare_groups(read_groups([Path(run) for run in runs], metric, stage), metric)
    if out is not None:
        write_json(Path(out) / "comparison.json", found.as_dict())
        for kind in ("svg", "png"):
            write(Path(out) / f"comparison.{kind}", pictures.draw(found, kind))
    return found


def _write_reports(event: SweepFinished) -> None:
    """Write the report of the sweep, and those of trials that were killed between their result and their report."""
    try:
        write_sweep_report(event)
        for trial, row in zip(event.sweep.trials, event.rows, strict=True):
            run = event.sweep.run(trial)
            if row.status == "finished" and not (run.path / "report.html").exists():
                write_report(run)
    except Exception as error:  # noqa: BLE001 (every trial has its result, whatever happens to the drawing)
        logging.getLogger("modelnative").warning(
            "the sweep is finished, but a report could not be written (%s); write it again with: %s",
            in_words(error),
            event.sweep.resume_command,
        )
