"""A Model Context Protocol server for any task: a model plays episodes by calling the task's own functions.

    python -m modelnative.bridges.mcp countdown --split heldout

The server speaks over its standard input and output, so that each client has a process and an episode of its own.
Besides the calls of the task there is `begin(stage, seed, index)`, which starts an episode. Needs the extra `mcp`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from modelnative.errors import UserError
from modelnative.extras import optional
from modelnative.tasks import make_task
from modelnative.tasks.contract.calls import Argument, Call, Refusal
from modelnative.tasks.contract.episode import Episode
from modelnative.tasks.contract.task import SPLITS, AnyTask, Split
from modelnative.tasks.tools.tool import Kind

TESTED = ("2.0", "3")


class TaskServer:
    """The tools of a task and one episode of it.

    Args:
        task: a task or the name of one.
        split: which problems are drawn.

    Attributes:
        episode: the episode.
        server: the low-level server of `mcp`.
    """

    def __init__(self, task: AnyTask | str, split: Split = "train") -> None:
        mcp = optional("mcp.server", "mcp", *TESTED)
        self._types = optional("mcp.types", "mcp", *TESTED)
        self.episode, self._split = Episode(task), split
        self._begin = _begin_call(self.episode.task.spec.stages)
        instructions = f"{self.episode.rules}\nCall begin first, and again for another problem."
        name = f"modelnative-{self.episode.task.spec.name}"
        self.server = mcp.Server(
            name,
            version=version("modelnative"),
            instructions=instructions,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    def call(self, name: str, arguments: Mapping[str, Any] | None) -> tuple[str, bool]:
        """Make a call; return the text for the model, and whether it was refused."""
        with contextlib.redirect_stdout(sys.stderr):  # standard output is the protocol's, whatever a tool prints
            if name == self._begin.name:
                try:
                    given = self._begin.checked(arguments or {})
                    opening = self.episode.begin(
                        given["stage"], seed=given["seed"], index=given["index"], split=self._split
                    )
                    return opening, False
                except UserError as error:
                    return f"Refused: {error}", True
            try:
                shown = self.episode.call(name, arguments)
            except UserError as error:  # the episode has not begun
                return f"Refused: {error}", True
            return shown.text, shown.refused

    async def _list(self, context: Any, parameters: Any) -> Any:
        schemas = [call.schema()["function"] for call in (self._begin, *self.episode.calls)]
        tools = [
            self._types.Tool(name=s["name"], description=s["description"], input_schema=s["parameters"])
            for s in schemas
        ]
        return self._types.ListToolsResult(tools=tools)

    async def _call(self, context: Any, parameters: Any) -> Any:
        text, refused = self.call(parameters.name, parameters.arguments)
        return self._types.CallToolResult(content=[self._types.TextContent(type="text", text=text)], is_error=refused)

    async def serve(self) -> None:
        """Serve over standard input and output until they are closed."""
        stdio = optional("mcp.server.stdio", "mcp", *TESTED)
        async with stdio.stdio_server() as (reads, writes):
            await self.server.run(reads, writes, self.server.create_initialization_options())


def _begin_call(stages: Sequence[str]) -> Call:
    arguments = {
        "stage": Argument((Kind(str, tuple(stages)),), "how difficult, easiest first"),
        "seed": Argument((Kind(int),), "of a sequence of problems"),
        "index": Argument((Kind(int),), "the place in the sequence, from 0 on"),
    }

    def keys(state: object, given: Mapping[str, Any]) -> Sequence[str]:
        raise Refusal("begin presses no key")

    return Call("begin", "Begin an episode and show its problem.", keys, lambda state, keys: None, arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of the server."""
    parser = argparse.ArgumentParser(prog="python -m modelnative.bridges.mcp", description="Serve a task over MCP.")
    parser.add_argument("task", help="the name of a task, or module:name")
    parser.add_argument("--split", choices=SPLITS, default="train", help="which problems are drawn")
    given = parser.parse_args(arguments)
    try:
        server = TaskServer(make_task(given.task), given.split)
    except UserError as error:
        print(f"modelnative: error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    optional("anyio", "mcp", "4", "5").run(server.serve)


if __name__ == "__main__":
    main()
