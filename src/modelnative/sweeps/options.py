"""How a sweep is run: where, and how many trials at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from modelnative.errors import UserError, choose, require
from modelnative.sweeps.events import SweepEvent
from modelnative.sweeps.executors import Executor, LocalExecutor
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.on_ray import INSTALL, RayExecutor, installed
from modelnative.sweeps.plan import check
from modelnative.sweeps.scheduler import run_trials
from modelnative.training.parallel import usable_cores

PLACES = ("auto", "local", "ray")


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is run. None of these options changes a result.

    Attributes:
        jobs: number of trials at the same time; None: as many as there are cores for.
        retries: how often a trial that crashes is retried.
        on: `local`, `ray`, or `auto`, which is Ray if it is installed.
        address: address of a Ray cluster; None: this machine.
    """

    jobs: int | None = None
    retries: int = 2
    on: str = "auto"
    address: str | None = None

    @property
    def place(self) -> Literal["local", "ray"]:
        """Where the trials run."""
        return "ray" if self.on == "ray" or self.address or (self.on == "auto" and installed()) else "local"


def check_all(sweep: Sweep, options: SweepOptions) -> None:
    """Raise a `UserError` unless every option and every trial is allowed. Nothing is written."""
    choose("on", options.on, PLACES)
    require(options.jobs is None or options.jobs >= 1, "jobs", options.jobs, "at least 1")
    require(options.retries >= 0, "retries", options.retries, "0 or more")
    if options.address is not None and options.on == "local":
        raise UserError(f"address: {options.address!r} is not allowed with --on local; expected --on ray")
    if options.place == "ray" and not installed():
        field, value = ("address", options.address) if options.address else ("on", options.on)
        raise UserError(f"{field}: {value!r} needs Ray, which is not installed; install it with: {INSTALL}")
    # The devices of a cluster are not known here.
    check(sweep.trials, devices=options.place == "local")


def run_sweep(sweep: Sweep, options: SweepOptions, after_run: str) -> Generator[SweepEvent, None, None]:
    """Run all trials that are not finished; see `run_trials` for the events.

    Args:
        sweep: new or existing.
        options: where and how.
        after_run: `module:function`; the process of a trial calls it with the finished run.

    Raises:
        UserError: an option or a trial is not allowed, or another process runs the same sweep.
    """
    check_all(sweep, options)
    sweep = Sweep(sweep.path.absolute(), sweep.spec, sweep.trials) if options.place == "ray" else sweep
    with contextlib.closing(_executor(sweep, options, after_run)) as executor:
        sweep.write()
        with sweep.lock("sweep") as held:
            yield from run_trials(sweep, executor, options.retries, held.require_in_place)


def _executor(sweep: Sweep, options: SweepOptions, after_run: str) -> Executor:
    if options.place == "ray":
        return RayExecutor(sweep, options.address, options.jobs, after_run)
    threads = max(trial.config.threads for trial in sweep.trials)
    executor = LocalExecutor(sweep, options.jobs or max(1, usable_cores() // threads), after_run)
    if options.on == "auto":
        executor.place = f"in local processes, as Ray is not installed ({INSTALL})"
    return executor
