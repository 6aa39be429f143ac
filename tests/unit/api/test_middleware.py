"""What the outermost layer does when an answer breaks in its middle."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.types import Receive, Scope, Send

from api.errors import internal_problem, respond
from api.middleware import RequestContext

DENIAL: dict[str, dict[str, str]] = {"websocket.http.response": {}}


def _run(context: RequestContext) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-request-id", b"me")]}
    asyncio.run(context(scope, receive, send))
    return sent


def test_an_answer_that_breaks_is_left_unfinished_for_the_server_to_cut() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"[1,", "more_body": True})
        raise RuntimeError("secret")

    start, body = _run(RequestContext(breaks))

    assert (start["status"], dict(start["headers"])[b"x-request-id"]) == (200, b"me")
    assert body["more_body"]


def test_a_failure_before_the_answer_is_a_problem_with_the_request_id() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret")

    start, body = _run(RequestContext(breaks))

    assert start["status"] == 500
    assert dict(start["headers"])[b"x-request-id"] == b"me"
    assert b"secret" not in body["body"]


def test_a_refused_socket_has_the_request_id() -> None:
    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(internal_problem(), scope["penstock.request_id"])(scope, receive, send)

    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(b"x-request-id", b"me")]
    scope = {"type": "websocket", "path": "/", "headers": headers, "extensions": DENIAL}
    asyncio.run(RequestContext(refuses)(scope, receive, send))

    assert sent[0]["type"] == "websocket.http.response.start"
    assert dict(sent[0]["headers"])[b"x-request-id"] == b"me"


def test_a_socket_that_breaks_is_closed_as_an_error_of_ours() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "headers": []})
        raise RuntimeError("secret")

    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": []}
    asyncio.run(RequestContext(breaks)(scope, receive, send))

    accepted, closed = sent
    assert dict(accepted["headers"])[b"x-request-id"].startswith(b"req_")
    assert closed == {"type": "websocket.close", "code": 1011}
