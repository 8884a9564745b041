"""Any task as an OpenEnv environment with its own server.

    python -m modelnative.bridges.openenv countdown --port 8000

An action names one of the task's functions and its arguments; the observation is what a model reads. Each session has
an episode of its own. `reset(seed=…, index=…, stage=…, split=…)` always begins the same problem, so that the members of
a group can share it. Needs the extra `openenv`.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from pydantic import Field

from modelnative.errors import UserError, choose
from modelnative.extras import optional
from modelnative.tasks import make_task
from modelnative.tasks.contract.episode import Episode, Shown
from modelnative.tasks.contract.task import SPLITS, AnyTask, Split, require

TESTED = ("0.10", "0.11")
TASKS = 1000  # problems of a split that are offered as OpenEnv tasks
core: Any = optional("openenv.core.env_server.interfaces", "openenv", *TESTED, package="openenv")
types: Any = optional("openenv.core.env_server.types", "openenv", *TESTED, package="openenv")


class CallAction(types.Action):  # type: ignore[misc]
    """A call of one of the task's functions."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class EpisodeObservation(types.Observation):  # type: ignore[misc]
    """What a model reads after a call; after `reset` also the rules and the functions."""

    text: str
    success: bool = False
    truncated: bool = False
    refused: bool = False
    invalid: int = 0
    rules: str = ""
    tools: list[dict[str, Any]] = Field(default_factory=list)


class TaskEnvironment(core.Environment):  # type: ignore[misc]
    """One episode of a task at a time.

    Args:
        task: the task.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, task: AnyTask) -> None:
        super().__init__()
        self._episode, self._id, self._steps = Episode(task), "", 0

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        stage: str | None = None,
        index: int = 0,
        split: str = "train",
        **rest: Any,
    ) -> EpisodeObservation:
        """Begin an episode. Without a seed, a random one is drawn; the metadata say which."""
        require(not rest, "reset", sorted(rest), "seed, episode_id, stage, index and split")
        seed = random.SystemRandom().randrange(2**31) if seed is None else seed
        stages = self._episode.task.spec.stages
        stage = stages[index % len(stages)] if stage is None else stage
        opening = self._episode.begin(stage, seed=seed, index=index, split=_split(split))
        self._id, self._steps = episode_id or f"{stage}-{split}-{seed}-{index}", 0
        where = {"stage": stage, "seed": seed, "index": index, "split": split}
        shown = Shown(opening)
        return self._observation(shown, rules=self._episode.rules, tools=self._episode.tools, metadata=where)

    def step(self, action: CallAction, timeout_s: float | None = None, **rest: Any) -> EpisodeObservation:
        """Make a call."""
        self._steps += 1
        return self._observation(self._episode.call(action.name, action.arguments))

    @property
    def state(self) -> Any:
        """The id of the episode and the number of calls; the registers of the tools are not shown."""
        return types.State(episode_id=self._id or None, step_count=self._steps)

    def get_metadata(self) -> Any:
        """The name, the rules and the version."""
        task = self._episode.task
        return types.EnvironmentMetadata(
            name=task.spec.name, description=self._episode.rules, version=version("modelnative")
        )

    # OpenEnv's task API: problem `index` of seed 0; pass `split` and `index` to `reset`

    def list_splits(self) -> list[str]:
        """The splits of problems."""
        return ["train", "heldout"]

    def num_tasks(self, split: str) -> int:
        """How many problems of a split are offered."""
        _split(split)
        return TASKS

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """What to pass to `reset` for a problem."""
        require(0 <= index < TASKS, "index", index, f"0 to {TASKS - 1}")
        stages = self._episode.task.spec.stages
        row = {"split": _split(split), "index": index, "seed": 0, "stage": stages[index % len(stages)]}
        return {"id": f"{split}-{index}", **row}

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """All problems that are offered."""
        return [self.get_task(split, index) for index in range(TASKS)]

    def _observation(self, shown: Shown, **more: Any) -> EpisodeObservation:
        return EpisodeObservation(
            text=shown.text,
            done=shown.over,
            reward=shown.reward,
            success=shown.success,
            truncated=shown.truncated,
            refused=shown.refused,
            invalid=shown.invalid,
            **more,
        )


def _split(name: str) -> Split:
    """The split with a name; raises `UserError` if there is none."""
    return next(split for split in SPLITS if split == choose("split", name, SPLITS))


def make_app(task: AnyTask | str, sessions: int = 64) -> Any:
    """Return the FastAPI application of a task's environment, for as many sessions at once as are allowed."""
    server = optional("openenv.core.env_server.http_server", "openenv", *TESTED, package="openenv")
    made = make_task(task) if isinstance(task, str) else task
    factory: Callable[[], TaskEnvironment] = lambda: TaskEnvironment(made)  # noqa: E731
    return server.create_fastapi_app(
        factory, CallAction, EpisodeObservation, max_concurrent_envs=sessions, env_name=made.spec.name
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the server."""
    parser = argparse.ArgumentParser(prog="python -m modelnative.bridges.openenv", description="Serve a task.")
    parser.add_argument("task", help="the name of a task, or module:name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--sessions", type=int, default=64, help="the most sessions at once")
    given = parser.parse_args(arguments)
    try:
        app = make_app(given.task, given.sessions)
    except UserError as error:
        print(f"modelnative: error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    optional("uvicorn", "openenv", "0", "1").run(app, host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
