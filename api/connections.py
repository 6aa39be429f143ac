"""uvicorn's HTTP connection with a limit on how long a request's head may take, its log without
query strings, where browsers put keys, and files enough for all. Knows no application."""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_LIMIT: Final = 20.0  # seconds from a request's first byte to the end of its headers
LOGGERS: Final = ("uvicorn.error", "uvicorn.access")


class Connection(H11Protocol):
    """Closes where a head is begun and not finished: each open connection is one of a few
    thousand."""

    head_limit: float = HEAD_LIMIT
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:  # a part of a head
            self._await_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(
                self.head_limit, self.timeout_keep_alive_handler
            )

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _WithoutQueries(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args
            )
        return True


def allow_open_files(wanted: int) -> None:
    """Let this process have so many at once, or as many as it may give itself: the usual thousand
    are used up long before there are too many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def hide_queries() -> None:
    """Keep query strings out of what uvicorn logs. Idempotent."""
    for logger in map(logging.getLogger, LOGGERS):
        if not any(isinstance(known, _WithoutQueries) for known in logger.filters):
            logger.addFilter(_WithoutQueries())
