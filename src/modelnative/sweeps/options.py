"""From options to a sweep under way: where its trials run, how many at once, and that nobody else works on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from modelnative.errors import UserError, choose
from modelnative.sweeps.executors import Crew, LocalCrew
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.on_ray import INSTALL, RayCrew, installed
from modelnative.sweeps.plan import check
from modelnative.sweeps.scheduler import Event, drive

PLACES = ("auto", "local", "ray")


@dataclass(frozen=True)
class Options:
    """How a sweep is carried out; none of it changes what comes out.

    Attributes:
        jobs: trials at a time; None for as many as there are cores for.
        retries: how often a trial that dies is tried again.
        on: `local`, `ray`, or `auto`: Ray where it is installed.
        address: of a Ray cluster; None for this machine.
    """

    jobs: int | None = None
    retries: int = 2
    on: str = "auto"
    address: str | None = None

    @property
    def place(self) -> Literal["local", "ray"]:
        """Where the trials run."""
        return "ray" if self.on == "ray" or self.address or (self.on == "auto" and installed()) else "local"


def check_all(sweep: Sweep, options: Options) -> None:
    """Raise a `UserError` unless every option and every trial is allowed. Nothing is written."""
    choose("on", options.on, PLACES)
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"jobs: {options.jobs!r} is not allowed; expected at least 1")
    if options.retries < 0:
        raise UserError(f"retries: {options.retries!r} is not allowed; expected 0 or more")
    if options.address is not None and options.on == "local":
        raise UserError(f"address: {options.address!r} is not allowed with --on local; expected --on ray")
    if options.place == "ray" and not installed():
        field, value = ("address", options.address) if options.address else ("on", options.on)
        raise UserError(f"{field}: {value!r} needs Ray, which is not installed; install it with: {INSTALL}")
    # What a cluster's machines can compute on, this one cannot know.
    check(sweep.trials, devices=options.place == "local")


def carry_out(sweep: Sweep, options: Options, afterwards: str) -> Iterator[Event]:
    """Do what is unfinished; see `drive` for the events.

    Args:
        sweep: may be new.
        options: where and how.
        afterwards: `module:function`, which a trial's own process calls with its finished run.

    Raises:
        UserError: an option or a trial is not allowed, or another process carries the same sweep out.
    """
    check_all(sweep, options)
    sweep = Sweep(sweep.path.absolute(), sweep.spec, sweep.trials) if options.place == "ray" else sweep
    with contextlib.closing(_crew(sweep, options, afterwards)) as crew:
        sweep.write()
        with sweep.lock("sweep"):
            yield from drive(sweep, crew, options.retries)


def _crew(sweep: Sweep, options: Options, afterwards: str) -> Crew:
    if options.place == "ray":
        return RayCrew(sweep, options.address, options.jobs, afterwards)
    threads = max(trial.config.threads for trial in sweep.trials)
    crew = LocalCrew(sweep, options.jobs or max(1, _cores() // threads), afterwards)
    if options.on == "auto":
        crew.place = f"in local processes, as Ray is not installed ({INSTALL})"
    return crew


def _cores() -> int:
    """The cores that this process may use; a container often has fewer than its machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
