"""The outermost layer: a request id for every answer, and an answer for every failure."""

from __future__ import annotations

import re
import traceback
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import current
from api.errors import Problem, internal_problem, respond
from penstock.errors import Unavailable
from penstock.hosts import is_loopback
from penstock.ids import new_id
from penstock.telemetry import get_logger

log = get_logger(__name__)

HEADER: Final = "X-Request-ID"
SANE: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
FRAMES: Final = 5  # of a traceback, innermost
CONNECTIONS: Final = ("http", "websocket")
STARTS: Final = ("http.response.start", "websocket.accept", "websocket.http.response.start")
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # what they answer no foreign page gets
INTERNAL_ERROR: Final = 1011  # a WebSocket's code


class OwnNamesOnly:
    """Refuses requests that were sent to a name other than this machine's own, and whatever may
    change something or opens a WebSocket for the page of another machine (browsers send a form's
    post and open a socket without asking first), as long as nobody is asked for a key."""

    def __init__(self, app: ASGIApp, asks_for_keys: Callable[[], Awaitable[bool]]) -> None:
        self._app = app
        self._asks_for_keys = asks_for_keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = _refusal(scope) if scope["type"] in CONNECTIONS else None
        if refused is None or await self._is_guarded():
            await self._app(scope, receive, send)
            return
        await respond(refused, scope["penstock.request_id"])(scope, receive, send)

    async def _is_guarded(self) -> bool:
        try:
            return await self._asks_for_keys()
        except Unavailable:
            return False


def _refusal(scope: Scope) -> Problem | None:
    headers = Headers(scope=scope)
    if not is_loopback(_without_port(headers.get("host", ""))):
        message = "Without keys only localhost is answered."
        return Problem(400, "unknown_host", message, param="Host")
    origin = headers.get("origin")
    if origin is None or scope.get("method") in READING:  # a WebSocket has no method
        return None
    if not is_loopback(_without_port(origin.partition("://")[2])):
        message = "Without keys only pages of this machine may do more than read."
        return Problem(403, "unknown_origin", message, param="Origin")
    return None


def _without_port(host: str) -> str:
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


class RequestContext:
    """Plain ASGI: it sees streams as they pass and holds nothing back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        noted = current.begin()
        if scope["type"] not in CONNECTIONS:
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if SANE.fullmatch(given) else new_id("req")
        scope["penstock.request_id"] = request_id
        started = False

        async def tagged(message: Message) -> None:
            nonlocal started
            if message["type"] in STARTS:
                started = True
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                headers.update(noted.headers)
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request_id):
            try:
                await self._app(scope, receive, tagged)
            except Exception as error:
                _log_failure(error)
                # After a started answer the server closes the connection, which is the only way
                # left to say that it is not whole.
                if started and scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": INTERNAL_ERROR})
                elif not started:
                    await respond(internal_problem(), request_id)(scope, receive, tagged)


def _log_failure(error: Exception) -> None:
    # Not the message: a database's may quote the prompt that it could not take.
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    log.error("request.failed", error=type(error).__name__, where=where)
