"""The null harness of verifiers without a process for each rollout: its chat loop runs in the loop of the caller.

`NullHarness` starts its chat program with uv, which takes seconds for each rollout. The program is the same here: its
source is executed once, as a module. Model calls go to the interception server and calls of tools to the tool server,
as they do there. Only the HTTP clients are shared by the rollouts, because each takes 20 ms to read its certificates.
"""

from __future__ import annotations

import argparse
import functools
import types
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from verifiers.v1.harnesses.null import NullHarness
from verifiers.v1.harnesses.utils.launch import CHAT_PROGRAM_SOURCE
from verifiers.v1.runtimes import ProgramResult

__all__ = ["InProcessHarness"]
PATIENCE = 600.0  # seconds
TEXTS = "texts of the tools"  # in the `info` of a trace: a rollout stops before the last texts are sent to the model


@functools.cache
def model_connections() -> Any:
    """The connections to the interception server. The program waits 5 s for one, too little on a busy machine."""
    return DefaultAsyncHttpxClient(timeout=PATIENCE)


@functools.cache
def tool_connections() -> Any:
    """The connections to the tool server."""
    return create_mcp_http_client(timeout=httpx2.Timeout(PATIENCE))


@asynccontextmanager
async def mcp_client(spec: dict[str, Any]) -> AsyncIterator[Client]:
    """The program's function of this name, with shared connections."""
    async with Client(streamable_http_client(spec["url"], http_client=tool_connections())) as client:
        yield client


@functools.cache
def program() -> Any:
    """The chat program of verifiers as a module."""
    module = types.ModuleType("verifiers_chat_program")
    exec(compile(CHAT_PROGRAM_SOURCE, module.__name__, "exec"), module.__dict__)  # noqa: S102  # its own source
    module.__dict__["mcp_client"] = mcp_client
    return module


class InProcessHarness(NullHarness):  # type: ignore[misc]
    """`NullHarness`, in process."""

    async def setup(self, runtime: Any) -> None:
        """Nothing: no environment is made."""

    async def launch(
        self,
        ctx: Any,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: Any,
        tool_interception_url: str | None = None,
    ) -> Any:
        """Do what the program's `main` does."""
        system, prompt = self.resolve_prompt(data)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        client = AsyncOpenAI(base_url=endpoint, api_key=secret, http_client=model_connections())
        config = {"mcpServers": {name: {"url": url} for name, url in mcp_urls.items()}}
        options = argparse.Namespace(tool_interception_url=None, bash=False, edit=False, search=False)
        async with AsyncExitStack() as stack:
            tools, dispatch, servers = await program().connect_mcp(config, stack)
            compactor = program().Compactor(client, ctx.model, tools, False, None)
            compactor.note_good(messages)
            try:
                await program().run_chat_loop(options, compactor, messages, dispatch, servers, None)
            except SystemExit as error:  # the program ends itself when the model cannot be reached
                raise ConnectionError(f"the chat program ended with {error.code}") from error
            finally:
                trace.info[TEXTS] = [message["content"] for message in messages if message["role"] == "tool"]
        return ProgramResult(exit_code=0, stdout="", stderr="")
