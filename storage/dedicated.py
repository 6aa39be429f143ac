"""Connections with a purpose of their own: one that listens, one that holds an advisory lock.

Both raise `Unavailable` when their connection is gone; to make a new one is the caller's part.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from types import TracebackType
from typing import Any

import psycopg2
from psycopg2 import sql

from penstock.errors import Unavailable

Connect = Callable[[], Any]


def _open(connect: Connect) -> Any:
    try:
        connection = connect()
    except psycopg2.Error as error:
        raise Unavailable("The database is away.") from error
    connection.autocommit = True
    return connection


class Listener:
    """Notifications of one channel. One thread may wait at a time."""

    def __init__(self, connect: Connect, channel: str) -> None:
        self._connection = _open(connect)
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        except psycopg2.Error as error:
            self.close()
            raise Unavailable("The database is away.") from error

    def wait(self, timeout: float) -> list[str]:
        """Payloads that came since the last call; blocks for the first one, `timeout` s at most."""
        connection = self._connection
        try:
            connection.poll()
            if not connection.notifies:
                poller = select.poll()
                poller.register(connection.fileno(), select.POLLIN)
                poller.poll(timeout * 1000)
                connection.poll()
        except psycopg2.Error as error:
            raise Unavailable("The database is away.") from error
        payloads = [notify.payload for notify in connection.notifies]
        connection.notifies.clear()
        return payloads

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AdvisoryLock:
    """A session lock on `key`: whoever holds it is the only one, until its connection ends."""

    def __init__(self, connect: Connect, key: int) -> None:
        self._connect = connect
        self._key = key
        self._connection: Any = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free; never waits for it. True as well when it is held already."""
        if self.alive():
            return True
        connection = _open(self._connect)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_try_advisory_lock(%s)", (self._key,))
                taken = bool(cursor.fetchone()[0])
        except psycopg2.Error as error:
            connection.close()
            raise Unavailable("The database is away.") from error
        if not taken:
            connection.close()
            return False
        self._connection = connection
        return True

    def alive(self) -> bool:
        """Is the lock still held? Asks the server."""
        if self._connection is None:
            return False
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Give the lock back, by ending its connection. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
