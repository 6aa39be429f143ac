"""Runs an ASGI app under uvicorn on a socket that was bound here. Knows no settings."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from api.connections import Connection, allow_open_files, hide_queries
from penstock.errors import StackError

BACKLOG: Final = 2048
MAX_CONNECTIONS: Final = 4096  # beyond them uvicorn answers 503 by itself
KEEP_ALIVE: Final = 30  # seconds
GRACE: Final = 10  # seconds for requests that run when a signal comes
UNTAKEN: Final = 60_000  # ms that a client may leave what was sent to it untaken
MAX_MESSAGE: Final = 4 << 20  # bytes on a WebSocket; what a chat may have is checked by its route


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `StackError`."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StackError(f"The API cannot listen on {host}:{port}: {reason}.") from None
    # Its connections inherit this. asyncio sets it only on sockets that name their protocol, and
    # without it each answer on a kept connection waits 40 ms for the client's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Else who reads nothing, or is gone without a word, could hold a stream for hours.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN)
    return listener


class _Server(uvicorn.Server):
    """Lets waiting clients go first, so that a shutdown is not as long as the longest wait."""

    def __init__(self, config: uvicorn.Config, on_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_shutdown = on_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_shutdown()
        await super().shutdown(sockets)


def run(app: FastAPI, listener: socket.socket, on_shutdown: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, finish what runs, and return."""
    config = uvicorn.Config(
        app,
        http=Connection,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,  # memory for each client, and little to win on short texts
    )
    hide_queries()
    allow_open_files(2 * MAX_CONNECTIONS)
    # uvicorn repeats the signal to the handlers of before, which would end the process with an
    # error after a shutdown that went well.
    before: dict[int, Any] = {
        number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        _Server(config, on_shutdown).run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: object) -> None:
    return None
