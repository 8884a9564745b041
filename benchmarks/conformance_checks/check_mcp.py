"""Checks of the bridge to mcp."""

from __future__ import annotations

import os
import random
import sys

from conformance_registry import EPISODES, FAMILIES, KINDS, calls_of, check, family, reference, summary

import modelnative as mn
from modelnative.tasks.contract.episode import Episode


@check(
    "mcp", "mcp.server", "a client over standard input and output: 20 oracle and 20 spoiled episodes of two families"
)
def mcp_episodes() -> str:
    import anyio
    from mcp import StdioServerParameters
    from mcp.client.client import Client

    async def run(name: str) -> int:
        task, chance, won = mn.make(name), random.Random(2), 0
        server = [sys.executable, "-m", "modelnative.bridges.mcp", name]
        async with Client(StdioServerParameters(command=server[0], args=server[1:], env=dict(os.environ))) as client:
            tools = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
            assert list(tools) == ["begin", *(call.name for call in task.calls())], tools
            for index in range(40):
                stage, episode = task.spec.stages[index % len(task.spec.stages)], Episode(task)
                opening = episode.begin(stage, seed=4, index=index)
                begun = await client.call_tool("begin", {"stage": stage, "seed": 4, "index": index})
                assert begun.content[0].text == opening, (begun, opening)
                for call, arguments in calls_of(episode, None if index % 2 else chance):
                    answer, shown = await client.call_tool(call, arguments), episode.call(call, arguments)
                    assert (answer.content[0].text, bool(answer.is_error)) == (shown.text, shown.refused), answer
                won += episode.success
        return won

    return "every text equal; " + summary({name: (anyio.run(run, name), 40) for name in ("countdown", "hops")})


@check(
    "mcp", "mcp.server", "1,000 oracle and 1,000 spoiled episodes of every family through `TaskServer.call`", slow=True
)
def mcp_server() -> str:
    from modelnative.bridges.mcp import TaskServer

    won = dict.fromkeys(FAMILIES, (0, 0))
    for name in FAMILIES:
        server = TaskServer(family(name))
        for played in (played for kind in KINDS for played in reference(name, kind)):
            where = {"stage": played.stage, "seed": played.seed, "index": played.index}
            assert server.call("begin", where) == (played.opening, False), played
            answers = [server.call(call, arguments) for call, arguments in played.calls]
            assert answers == list(zip(played.texts, played.refused, strict=True)), (answers, played)
            assert server.episode.success == played.success, played
            won[name] = (won[name][0] + played.success, won[name][1] + 1)
        assert won[name][1] == 2 * EPISODES
    return f"every text equal; {summary(won)}"
