"""Requests to an ASGI application in this process, as bytes; no network, no further package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    app: Any,
    path: str,
    query: Mapping[str, str] | None = None,
    *,
    method: str | None = None,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    until: bytes | None = None,
) -> Answer:
    """Ask once.

    Args:
        app: the application.
        path: not encoded.
        query: parameters.
        method: GET, or POST where there is a body.
        body: sent in pieces of a kilobyte.
        headers: more of them; a `host` replaces the usual one.
        until: leave as soon as the answer holds this, as a reader of events does.
    """
    posted = {"content-type": "application/json"} if body else {}
    given = {"host": "localhost:8420", **posted, **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method or ("POST" if body else "GET"),
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "root_path": "",
        "query_string": urlencode(query or {}, errors="surrogatepass").encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8420),
    }
    pieces = [body[i : i + 1024] for i in range(0, len(body), 1024)] or [b""]
    sent: list[dict[str, Any]] = []

    async def ask() -> None:
        left = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if pieces:
                piece = pieces.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if until is not None and until in message.get("body", b""):
                left.set()

        await asyncio.wait_for(app(scope, receive, send), 60)

    asyncio.run(ask())
    start = next(message for message in sent if message["type"] == "http.response.start")
    named = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], named, b"".join(message.get("body", b"") for message in sent))
