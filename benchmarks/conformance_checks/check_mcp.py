"""Checks of the bridge to mcp."""

from __future__ import annotations

import os
import random
import sys

from conformance_registry import calls_of, check, summary

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
