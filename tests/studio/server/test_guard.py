from __future__ import annotations

from typing import Any

import pytest
from asgi import request
from hypothesis import given
from hypothesis import strategies as st

from modelnative.studio.server.guard import BODY, HEADERS, QUERY, Guard


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive() if scope["method"] == "POST" else {}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": message.get("body", b"ok")})


APP = Guard(echo)


@pytest.mark.parametrize("host", ["localhost", "localhost:8420", "127.0.0.1:1", "[::1]:8420", "LOCALHOST:80"])
def test_its_own_names_are_served(host: str) -> None:
    answer = request(APP, "/", headers={"host": host})
    assert (answer.status, answer.text) == (200, "ok")
    assert {name: answer.headers[name] for name, _ in HEADERS} == dict(HEADERS)


FOREIGN = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil", "", "10.0.0.1", "a b")


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_names_are_refused(host: str) -> None:
    answer = request(APP, "/", headers={"host": host})
    assert answer.status == 421
    assert "content-security-policy" in answer.headers


@given(st.text(st.characters(max_codepoint=126, min_codepoint=33), max_size=20))
def test_no_other_name_is_served(host: str) -> None:
    known = host.lower().rpartition(":")[0] in ("localhost", "127.0.0.1", "[::1]") or host.lower() in ("localhost",)
    assert (request(APP, "/", headers={"host": host}).status == 421) or known


def test_addresses_are_names_only_where_others_may_come_in() -> None:
    public = Guard(echo, ("localhost", "box"), addresses=True)
    assert [
        request(public, "/", headers={"host": host}).status
        for host in ("10.0.0.1:80", "[fe80::1]", "box", "evil.example")
    ] == [*(200, 200, 200, 421)]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:8420"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_a_foreign_page_cannot_post(headers: dict[str, str], status: int) -> None:
    assert request(APP, "/", body=b"{}", headers=headers).status == status


@given(st.integers(1, 3 * BODY))
def test_bodies_are_bounded(size: int) -> None:
    answer = request(APP, "/", body=b"x" * size)
    assert (answer.status, len(answer.body) == size) == ((200, True) if size <= BODY else (413, False))


def test_queries_and_methods_are_bounded() -> None:
    assert request(APP, "/", {"x": "y" * QUERY}).status == 414
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        assert request(APP, "/", method=method).status == 405
