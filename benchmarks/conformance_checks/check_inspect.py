"""Checks of the bridge to inspect_ai."""

from __future__ import annotations

import random
from typing import Any

from conformance_registry import EPISODES, FAMILIES, KINDS, calls_of, check, family, reference, summary

from modelnative.tasks.contract.episode import Episode


@check(
    "inspect_ai", "inspect_ai", "`eval` with a scripted model: 30 problems of two families, two epochs, half spoiled"
)
def inspect_evaluations() -> str:
    import tempfile

    from inspect_ai import eval as evaluate
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from modelnative.bridges.inspect import STORED, inspect_task

    def scripted(messages: Any, tools: Any, choice: Any, config: Any) -> Any:
        opening = next(message.text for message in messages if message.role == "user")
        made, plan = sum(message.role == "assistant" for message in messages), plans[opening]
        text = ModelOutput.from_content("mockllm", "Done.")
        output = ModelOutput.for_tool_call("mockllm", *plan[made]) if made < len(plan) else text
        output.usage = ModelUsage()  # without it, the mock model downloads a tokenizer
        return output

    words = []
    for name in ("countdown", "arithmetic"):  # each opening is of one problem
        task, chance, plans = family(name), random.Random(5), {}
        evaluation = inspect_task(task, count=30, seed=6)
        expected = {}
        for index, sample in enumerate(evaluation.dataset):
            row, episode = sample.metadata, Episode(task)
            opening = episode.begin(row["stage"], seed=row["seed"], index=row["index"], split=row["split"])
            plans[opening] = calls_of(episode, chance if index % 2 else None)
            for call, arguments in plans[opening]:
                if not episode.over:
                    episode.call(call, arguments)
            expected[sample.id] = (episode.keys, episode.success, episode.score)
        with tempfile.TemporaryDirectory() as folder:
            model = get_model("mockllm/model", custom_outputs=scripted)
            log = evaluate(evaluation, model=model, epochs=2, display="none", log_dir=folder)[0]
            assert log.status == "success", log.error
            for sample in log.samples:
                again = Episode.of(sample.store[STORED], task)
                assert (again.keys, again.success, again.score) == expected[sample.id], sample.id
        means = {s.name: s.metrics["mean"].value for s in log.results.scores}
        share = sum(success for _, success, _ in expected.values()) / len(expected)
        assert abs(means["success"] - share) < 1e-6, (means, share)
        words.append(f"{name} success {share:.3f} as scripted")
    return "; ".join(words)


@check(
    "inspect_ai",
    "inspect_ai",
    "1,000 oracle and 1,000 spoiled episodes of every family through its tools, with a store of their own",
    slow=True,
)
def inspect_tools() -> str:
    import asyncio

    from inspect_ai.tool import ToolError
    from inspect_ai.util._store import Store, init_subtask_store

    from modelnative.bridges.inspect import STORED, _tool

    async def play(task: Any, tools: dict[str, Any], played: Any) -> bool:
        store, episode = Store(), Episode(task)
        init_subtask_store(store)
        assert episode.begin(played.stage, seed=played.seed, index=played.index) == played.opening, played
        store.set(STORED, episode.to_json())
        for (call, arguments), text, refused in zip(played.calls, played.texts, played.refused, strict=True):
            try:
                answer = (await tools[call](**arguments), False)
            except ToolError as error:
                answer = (error.message, True)
            assert answer == (text, refused), (answer, played)
        again = Episode.of(store.get(STORED), task)
        assert (again.keys, again.score, again.success) == (played.keys, played.score, played.success), played
        return again.success

    async def all_of(name: str) -> int:
        task = family(name)
        tools = {call.name: _tool(task, call) for call in task.calls()}
        return sum([await play(task, tools, played) for kind in KINDS for played in reference(name, kind)])

    won = {name: (asyncio.run(all_of(name)), 2 * EPISODES) for name in FAMILIES}
    return f"texts, refusals, rewards and verdicts equal; {summary(won)}"
