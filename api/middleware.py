"""The outermost layer: a request id for every answer, and an answer for every failure."""

from __future__ import annotations

import re
import traceback
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Problem, internal_problem, respond
from penstock.hosts import is_loopback
from penstock.ids import new_id
from penstock.telemetry import get_logger

log = get_logger(__name__)

HEADER: Final = "X-Request-ID"
SANE: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
FRAMES: Final = 5  # of a traceback, innermost


class OwnNamesOnly:
    """Refuses requests that were sent to a name other than this machine's own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_loopback(_host_of(Headers(scope=scope))):
            await self._app(scope, receive, send)
            return
        refused = Problem(
            400, "unknown_host", "Without keys only localhost is answered.", param="Host"
        )
        await respond(refused, scope["penstock.request_id"])(scope, receive, send)


def _host_of(headers: Headers) -> str:
    """The host a client asked for, without its port."""
    host = headers.get("host", "")
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


class RequestContext:
    """Plain ASGI: it sees streams as they pass and holds nothing back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if SANE.fullmatch(given) else new_id("req")
        scope["penstock.request_id"] = request_id
        started = False

        async def tagged(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request_id):
            try:
                await self._app(scope, receive, tagged)
            except Exception as error:
                _log_failure(error)
                # After a started answer the server closes the connection, which is the only way
                # left to say that it is not whole.
                if not started:
                    await respond(internal_problem(), request_id)(scope, receive, tagged)


def _log_failure(error: Exception) -> None:
    # Not the message: a database's may quote the prompt that it could not take.
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    log.error("request.failed", error=type(error).__name__, where=where)
