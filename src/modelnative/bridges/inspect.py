"""Tasks for Inspect AI: a dataset of problems, the task's calls as tools, and its verifier as the scorer.

The episode is kept in the sample's store as JSON, so that it is in the log, where it can be played again with
`Episode.of`. Needs the extra `inspect`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelnative.extras import optional
from modelnative.tasks.contract.calls import Call
from modelnative.tasks.contract.episode import Episode
from modelnative.tasks.contract.task import AnyTask, Split, require

TESTED = ("0.3.285", "0.4")
STORED = "modelnative_episode"


def inspect_task(
    task: AnyTask | str,
    *,
    stages: Sequence[str] = (),
    count: int = 100,
    seed: int = 0,
    split: Split = "heldout",
) -> Any:
    """Return an Inspect `Task`; its score `success` is the verifier's verdict.

    An episode ends when the task ends it, when the model makes no call, or at Inspect's limits. `epochs` plays each
    problem several times.

    Args:
        task: a task or the name of one.
        stages: the names of the stages that problems are drawn from, in turn; empty means all.
        count: number of problems.
        seed: of the problems.
        split: which problems are drawn.

    Raises:
        UserError: an argument is not allowed, or Inspect is not installed.
    """
    inspect = optional("inspect_ai", "inspect", *TESTED, package="inspect_ai")
    data = optional("inspect_ai.dataset", "inspect", *TESTED, package="inspect_ai")
    require(count >= 1, "count", count, "at least 1")
    episode = Episode(task)
    names = list(stages) or list(episode.task.spec.stages)
    samples = []
    for index in range(count):
        stage = names[index % len(names)]
        opening = episode.begin(stage, seed=seed, index=index, split=split)
        sample = data.Sample(
            id=f"{stage}-{seed}-{index}",
            input=_messages(episode.rules, opening),
            metadata={"stage": stage, "seed": seed, "index": index, "split": split},
        )
        samples.append(sample)
    return inspect.Task(
        dataset=data.MemoryDataset(samples, name=episode.task.spec.name),
        solver=play(episode.task),
        scorer=verdict(episode.task),
    )


def play(task: AnyTask) -> Any:
    """The solver: the model calls the task's functions until the episode is over or it makes no call."""
    solvers = optional("inspect_ai.solver", "inspect", *TESTED, package="inspect_ai")

    @solvers.solver(name="modelnative_play")  # type: ignore[untyped-decorator, unused-ignore]
    def solver() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            episode = Episode(task)
            row = state.metadata
            episode.begin(row["stage"], seed=row["seed"], index=row["index"], split=row["split"])
            state.store.set(STORED, episode.to_json())
            state.tools = [_tool(task, call) for call in episode.calls]
            over = False
            while not (over or state.completed):
                state = await generate(state, tool_calls="single")
                calls = getattr(state.output.message, "tool_calls", None) if state.output.choices else None
                over = not calls or Episode.of(state.store.get(STORED), task).over
            return state

        return solve

    return solver()


def verdict(task: AnyTask) -> Any:
    """The scorer: the verifier's verdict, the rewards, and how the episode went."""
    scorers = optional("inspect_ai.scorer", "inspect", *TESTED, package="inspect_ai")
    values = ("success", "score", "truncated", "refused", "invalid")

    @scorers.scorer(  # type: ignore[untyped-decorator, unused-ignore]
        name="modelnative_verdict", metrics={value: [scorers.mean(), scorers.stderr()] for value in values}
    )
    def scorer() -> Any:
        async def score(state: Any, target: Any) -> Any:
            episode = Episode.of(state.store.get(STORED), task)
            keys = " ".join(episode.keys)
            return scorers.Score(value={name: float(getattr(episode, name)) for name in values}, answer=keys)

        return score

    return scorer()


def _tool(task: AnyTask, call: Call) -> Any:
    """A call of the episode in the store, as a tool."""
    tools = optional("inspect_ai.tool", "inspect", *TESTED, package="inspect_ai")
    store = optional("inspect_ai.util", "inspect", *TESTED, package="inspect_ai").store

    async def execute(**arguments: Any) -> str:
        episode = Episode.of(store().get(STORED), task)
        shown = episode.call(call.name, arguments)
        store().set(STORED, episode.to_json())
        if shown.refused:
            raise tools.ToolError(shown.text)
        return shown.text

    parameters = tools.ToolParams(**call.schema()["function"]["parameters"])
    return tools.ToolDef(execute, call.name, call.doc or call.name, parameters, parallel=False).as_tool()


def _messages(rules: str, opening: str) -> list[Any]:
    models = optional("inspect_ai.model", "inspect", *TESTED, package="inspect_ai")
    return [models.ChatMessageSystem(content=rules), models.ChatMessageUser(content=opening)]
