"""What no request gets around: host names, origins, sizes, and the headers of every answer."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY, QUERY = 1 << 14, 1 << 12  # bytes of a request
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
)


class Guard:
    """Refuses requests that no page of the studio makes.

    A foreign page cannot read the studio: it would need a host name of its own that leads here (DNS rebinding), which
    is refused, and browsers keep answers from pages of other origins. It cannot send anything either: a request that
    changes or computes something is JSON, from this origin.

    Args:
        app: what is guarded.
        hosts: names by which the studio is reached.
        addresses: whether every IP address is allowed as a name too; a page cannot be reached by one that is not ours.
    """

    def __init__(self, app: App, hosts: Iterable[str] = LOOPBACK, addresses: bool = False) -> None:
        self.app, self.hosts, self.addresses = app, {host.lower() for host in hosts}, addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            return

        async def headed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message.get("headers", ())}
                added = [(n.encode(), v.encode()) for n, v in HEADERS if n.encode() not in given]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        refusal = self._refusal(scope)
        body = b""
        if refusal is None and scope["method"] == "POST":
            more = True
            while more and len(body) <= BODY:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False) and message["type"] == "http.request"
            if len(body) > BODY:
                refusal = (413, f"A request has at most {BODY:,} bytes.")
        if refusal is not None:
            await _answer(headed, *refusal)
            return
        sent = False

        async def again() -> MutableMapping[str, Any]:
            nonlocal sent
            if sent or scope["method"] != "POST":
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, headed)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and reason with which a request is refused; None if it is not."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._allowed(hosts[0]):
            return 421, f"This host name is not served. Open the studio by the address that it printed: {LOOPBACK[1]}."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "Only GET, HEAD and POST are answered."
        if len(scope.get("query_string", b"")) > QUERY:
            return 414, f"A query has at most {QUERY:,} bytes."
        if scope["method"] == "POST":
            if headers.get("content-type", [""])[0].partition(";")[0].strip().lower() != "application/json":
                return 415, "The content type of a request is application/json."
            for origin in headers.get("origin", []):
                if not self._allowed(re.sub(r"^https?://", "", origin)):
                    return 403, "This origin is not allowed."
            if headers.get("sec-fetch-site", ["same-origin"])[0] not in ("same-origin", "none"):
                return 403, "A page of another site may not ask for this."
        return None

    def _allowed(self, host: str) -> bool:
        """Whether a host name, with or without a port, is one of ours."""
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?", host, re.ASCII)
        if not match:
            return False
        name = match[1].lower()
        if name in self.hosts:
            return True
        try:
            return self.addresses and bool(ipaddress.ip_address(name.strip("[]")))
        except ValueError:
            return False


async def _answer(send: Send, status: int, reason: str) -> None:
    content = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
