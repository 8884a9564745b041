"""Agents of runs that play what a visitor asks for."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from typing import Any

import torch

from modelnative.errors import UserError, choose, require
from modelnative.evidence.explain import explain
from modelnative.policies.contract import Policy
from modelnative.runs.run import Run
from modelnative.studio.player import Episode
from modelnative.studio.server.library import Library
from modelnative.tasks.contract.task import AnyTask, Problems

KEPT = 8  # agents in memory
LONGEST = 2000  # characters of a problem
BEST = "best"


class Agents:
    """Loads agents once, and lets one play at a time.

    A task or network of the user's own is imported only if its module is trusted; see
    `modelnative.tasks.importing.require_trusted`.

    Args:
        library: where the runs are.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.lock = threading.Lock()
        self._loaded: OrderedDict[tuple[Any, ...], tuple[Policy, AnyTask, list[str]]] = OrderedDict()

    def about(self, name: str) -> dict[str, Any]:
        """Stages, the weights that can play, what the task is written like, and notes.

        Raises:
            UserError: the run is gone, damaged, or of a module that is not trusted.
        """
        with self.lock:
            run = self._open(name)
            weights = self._weights(run)
            if not weights:
                raise UserError("run: it has no weights yet")
            _, task, notes = self._agent(name, run, weights[0])
            parses = task.defines("parse")
        return {
            "stages": list(task.spec.stages),
            "weights": weights,
            "parses": parses,
            "oracle": task.has_oracle,
            "kept": run.config.keep_checkpoints,
            "every": run.config.checkpoint_every,
            "notes": notes,
        }

    def problem(self, name: str, stage: str, seed: int) -> str:
        """A problem of a stage as a visitor would type it.

        Raises:
            UserError: as for `about`; an unknown stage; or a task whose problems cannot be typed.
        """
        with self.lock:
            _, task, _ = self.agent(name, BEST)
            stages = torch.tensor([task.spec.stage_index(stage)])
            generator = torch.Generator().manual_seed(seed)
            try:
                problems = task.sample(stages, generator, "heldout")
            except UserError:
                problems = task.sample(stages, generator, "all")
            return typed(task, problems)

    def episode(
        self, name: str, weights: str, stage: str, problem: str, temperature: float, seed: int
    ) -> dict[str, Any]:
        """Play one problem; what the player reads.

        Args:
            name: of the run.
            weights: `best`, or the update of a checkpoint.
            stage, problem: as they are typed.
            temperature: 0 is greedy.
            seed: of the tokens that are drawn.

        Raises:
            UserError: as for `about`; or the task refuses the problem, and says why.
        """
        with self.lock:
            policy, task, notes = self.agent(name, weights)
            generator = torch.Generator().manual_seed(seed)
            problems = parsed(task, stage, problem)
            explanation = explain(policy, task, problems, temperature=temperature, generator=generator)
        return {**Episode("", explanation).as_dict(), "notes": notes}

    def agent(self, name: str, weights: str, keep: bool = True) -> tuple[Policy, AnyTask, list[str]]:
        """A policy, its task and notes; the caller holds `lock`.

        Args:
            name: of the run.
            weights: `best`, or the update of a checkpoint.
            keep: in memory, for the next time.

        Raises:
            UserError: as for `about`; or the run has no such weights.
        """
        return self._agent(name, self._open(name), weights, keep)

    def checkpoints(self, name: str) -> list[int]:
        """The updates of a run's checkpoints, oldest first."""
        return [int(path.stem) for path in self._open(name).checkpoints()]

    def _open(self, name: str) -> Run:
        return Run.open(self.library.folder(name))

    @staticmethod
    def _weights(run: Run) -> list[str]:
        """Names of the weights that can play: the best verified ones, then checkpoints, newest first."""
        checkpoints = [str(int(path.stem)) for path in reversed(run.checkpoints())]
        return [BEST, *checkpoints] if run.weights_path.exists() or checkpoints else []

    def _agent(self, name: str, run: Run, weights: str, keep: bool = True) -> tuple[Policy, AnyTask, list[str]]:
        choose("weights", weights, self._weights(run))
        files = [run.path / "config.json", run.weights_path, *run.checkpoints()[-1:]]
        if weights != BEST:
            files = [run.path / "config.json"]
        key = (name, weights, *(file.stat().st_mtime_ns for file in files if file.exists()))
        if key not in self._loaded:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                task = run.task()
                policy = run.policy(task, checkpoint=None if weights == BEST else int(weights))
            made = (policy, task, [str(warning.message) for warning in caught])
            if not keep:
                return made
            self._loaded[key] = made
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return self._loaded[key]


def parsed(task: AnyTask, stage: str, problem: str) -> Problems:
    """A batch of one problem that was typed.

    Raises:
        UserError: it is too long, or the task refuses it, and says why.
    """
    require(len(problem) <= LONGEST, "problem", f"{len(problem):,} characters", f"at most {LONGEST:,}")
    return task.parse(task.spec.stage_index(stage), problem)


def typed(task: AnyTask, problems: Problems) -> str:
    """The first problem as a visitor would type it.

    Raises:
        UserError: the task has problems that cannot be typed.
    """
    text = task.records(problems, task.begin(problems))[0].get("problem")
    if not isinstance(text, str):
        raise UserError(f"problem: the records of {task.spec.name!r} have no text that can be typed")
    return text
