"""Any task as a taskset of verifiers (v1), which prime-rl trains on, too.

A taskset's id is the name of a module without dots, so import `EpisodeTaskset` into one: `my_tasks`, for example.

    vf-validate my_tasks --taskset.family countdown --taskset.count 20 --runtime.type subprocess

The model calls the task's functions through one tool server; the episode is kept in the rollout's state as JSON. The
rollout stops when the episode is over. `validate` plays the oracle. Needs the extra `verifiers`.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema

from modelnative.extras import optional
from modelnative.tasks import make_task
from modelnative.tasks.contract.calls import Call
from modelnative.tasks.contract.episode import Episode
from modelnative.tasks.contract.task import AnyTask

TESTED = ("0.4", "0.5")
vf: Any = optional("verifiers.v1", "verifiers", *TESTED, package="verifiers")

__all__ = ["EpisodeTaskset"]


class EpisodeData(vf.TaskData):  # type: ignore[misc]
    """What identifies an episode: the task with its options, and its problem by seed and index."""

    family: str
    options: dict[str, Any]
    stage: str
    seed: int
    index: int
    split: str


class EpisodeState(vf.State):  # type: ignore[misc]
    """The episode as `Episode.to_json` has it; empty before the setup."""

    episode: dict[str, Any] = Field(default_factory=dict)


class EpisodeToolsConfig(vf.SharedToolsetConfig):  # type: ignore[misc]
    """The task whose functions are served."""

    family: str = "arithmetic"
    options: dict[str, Any] = Field(default_factory=dict)


class EpisodeTasksetConfig(vf.TasksetConfig):  # type: ignore[misc]
    """Which problems are drawn.

    Attributes:
        family: the name of a task, or `module:name`.
        options: of the task.
        stages: the names of the stages that problems are drawn from, in turn; empty means all.
        count, seed, split: the number of problems, and which ones are drawn.
    """

    family: str = "arithmetic"
    options: dict[str, Any] = Field(default_factory=dict)
    stages: list[str] = Field(default_factory=list)
    count: int = Field(1000, ge=1)
    seed: int = 0
    split: str = "train"


class EpisodeTask(vf.Task[EpisodeData, EpisodeState]):  # type: ignore[misc]
    """One problem."""

    async def setup(self, trace: Any, runtime: Any) -> None:
        """Begin the episode."""
        trace.state = EpisodeState(episode=self._begin().to_json())

    async def validate(self, runtime: Any) -> bool | None:
        """Play the oracle; None where the task has none or declares that it cannot succeed."""
        episode = self._begin()
        spec = episode.task.spec
        if not episode.task.has_oracle or (spec.solvable and not spec.solvable[spec.stage_index(self.data.stage)]):
            return None
        for name, arguments in episode.plan():
            episode.call(name, arguments)
        return episode.success

    @vf.stop  # type: ignore[untyped-decorator, unused-ignore]
    async def over(self, trace: vf.Trace) -> bool:
        """Whether the episode is over."""
        return bool(trace.state.episode) and self._episode(trace).over

    @vf.reward  # type: ignore[untyped-decorator, unused-ignore]
    async def task_reward(self, trace: vf.Trace) -> float:
        """The task's rewards."""
        return self._episode(trace).score

    @vf.metric  # type: ignore[untyped-decorator, unused-ignore]
    async def episode(self, trace: vf.Trace) -> dict[str, float]:
        """The verdict, and how the episode went."""
        played = self._episode(trace)
        names = ("success", "truncated", "refused", "invalid")
        return {**{name: float(getattr(played, name)) for name in names}, "keys": float(len(played.keys))}

    def _begin(self) -> Episode:
        data, episode = self.data, Episode(made(self.data.family, self.data.options))
        episode.begin(data.stage, seed=data.seed, index=data.index, split=data.split)
        return episode

    def _episode(self, trace: Any) -> Episode:
        return Episode.of(trace.state.episode, made(self.data.family, self.data.options))


class EpisodeTools(vf.Toolset[EpisodeToolsConfig, EpisodeState]):  # type: ignore[misc]
    """The functions of one task, for all episodes of it."""

    TOOL_PREFIX = None

    def register(self, mcp: Any) -> None:
        """Serve each call of the task as a tool."""
        for call in made(self.config.family, self.config.options).calls():
            function = self._with_state(self._function(call))
            mcp.add_tool(function, name=call.name, description=call.doc or call.name, structured_output=False)

    def _function(self, call: Call) -> Callable[..., str]:
        def function(**arguments: Any) -> str:
            episode = Episode.of(self.state.episode, made(self.config.family, self.config.options))
            text = episode.call(call.name, arguments).text
            self.state.episode = episode.to_json()
            return text

        # What the model wrote is passed on unchanged, and the episode refuses it in its own words. The type is str,
        # because the server reads lists and objects out of the texts of all other types.
        hints = {
            name: Annotated[str, PlainValidator(lambda value: value), WithJsonSchema(argument.schema())]
            for name, argument in call.arguments.items()
        }
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter(name, kind, annotation=hint) for name, hint in hints.items()]
        function.__name__ = call.name
        function.__annotations__ = {**hints, "return": str}
        function.__signature__ = inspect.Signature(parameters, return_annotation=str)  # type: ignore[attr-defined]
        return function


class EpisodeTaskset(vf.Taskset[EpisodeTask, EpisodeTasksetConfig]):  # type: ignore[misc]
    """The problems of a task."""

    def load(self) -> Iterator[EpisodeTask]:
        config = self.config
        episode = Episode(made(config.family, config.options))
        stages = config.stages or list(episode.task.spec.stages)
        for index in range(config.count):
            stage = stages[index % len(stages)]
            where = {"stage": stage, "seed": config.seed, "index": index, "split": config.split}
            opening = episode.begin(stage, seed=config.seed, index=index, split=config.split)
            task = {"family": config.family, "options": config.options}
            name = f"{config.family}-{stage}-{config.seed}-{index}"
            yield EpisodeTask(
                EpisodeData(name=name, prompt=opening, system_prompt=episode.rules, **task, **where), config.task
            )

    @classmethod
    def toolsets(cls, config: EpisodeTasksetConfig) -> list[Any]:
        return [EpisodeTools(EpisodeToolsConfig(family=config.family, options=config.options))]


def made(family: str, options: dict[str, Any]) -> AnyTask:
    """A task, made once for each family and options."""
    return _made(family, json.dumps(options, sort_keys=True))


@functools.cache
def _made(family: str, options: str) -> AnyTask:
    return make_task(family, **json.loads(options))


if __name__ == "__main__":
    EpisodeTools.run()
