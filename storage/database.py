"""The door to PostgreSQL: a pool, one transaction per `begin`, and every failure to reach the
database as `Unavailable`. Knows no table; owns no retry but that of a lost race."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg2
from sqlalchemy import Connection, create_engine, exc, make_url

from penstock.errors import StackError, Unavailable
from penstock.telemetry import get_logger
from storage.dedicated import AdvisoryLock, Listener

log = get_logger(__name__)
T = TypeVar("T")

#: Batches whose last outcome was stored, or whose status became final. Payload: the batch's id.
DONE_CHANNEL = "penstock_done"

#: Seconds: to get a connection of the pool, to wait for a lock, to do nothing in a transaction.
_POOL_TIMEOUT = 10.0
_LOCK_TIMEOUT = 10.0
_IDLE_IN_TRANSACTION = 60.0
#: Deadlock and serialization failure: the transaction was rolled back, and may simply run again.
_LOST_RACES = ("40P01", "40001")
_RETRY_PAUSE = 0.05  # seconds, doubled for each try


def sqlalchemy_url(url: str) -> str:
    """`postgresql://` or `postgres://` as SQLAlchemy's name of psycopg2; socket folders too."""
    scheme, colon, rest = url.partition("://")
    try:
        if not colon or scheme.split("+")[0] not in ("postgresql", "postgres"):
            raise ValueError(scheme)
        made = make_url(f"postgresql+psycopg2://{rest}")
    except (ValueError, exc.ArgumentError):
        raise StackError(
            "The database URL is not of the form postgresql://user:password@host/name.",
            param="database.url",
        ) from None
    return made.render_as_string(hide_password=False)


class Database:
    """A pool of connections. Safe to share between threads, not between processes."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        statement_timeout: float = 30.0,
        connect_timeout: int = 5,
        application_name: str = "penstock",
    ) -> None:
        self._connect_args = _connect_args(statement_timeout, connect_timeout, application_name)
        self._engine = create_engine(
            sqlalchemy_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_POOL_TIMEOUT,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=self._connect_args,
        )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back by an exception.

        Raises `Unavailable` when the database is away, busy beyond a limit, or the race was lost.
        """
        try:
            with self._engine.begin() as conn:
                yield conn
        except (exc.DBAPIError, exc.TimeoutError, psycopg2.Error) as error:
            if _is_outage(error):
                raise Unavailable("The database is away or too busy.") from error
            raise

    def transact(self, work: Callable[[Connection], T], *, attempts: int = 3) -> T:
        """Run `work` in a transaction, again when it lost a deadlock or serialization race."""
        for attempt in range(1, attempts):
            try:
                with self.begin() as conn:
                    return work(conn)
            except Unavailable as error:
                if sqlstate(error.__cause__) not in _LOST_RACES:
                    raise
                log.info("transaction.retried", attempt=attempt)
            # Who comes back at once takes its first lock again before the other has woken up.
            time.sleep(_RETRY_PAUSE * 2**attempt * random.uniform(0.5, 1))  # noqa: S311
        with self.begin() as conn:
            return work(conn)

    def listen(self, channel: str) -> Listener:
        """Notifications of `channel`, on a connection of their own."""
        return Listener(self._connect, channel)

    def advisory_lock(self, key: int) -> AdvisoryLock:
        """A lock that lives and dies with a connection of its own."""
        return AdvisoryLock(self._connect, key)

    def close(self) -> None:
        """Close the pool's idle connections."""
        self._engine.dispose()

    def _connect(self) -> Any:
        args, options = self._engine.dialect.create_connect_args(self._engine.url)
        options.update(self._connect_args)
        return psycopg2.connect(*args, **options)


def _connect_args(statement_timeout: float, connect_timeout: int, name: str) -> dict[str, Any]:
    limits = {
        "statement_timeout": statement_timeout,
        "lock_timeout": min(_LOCK_TIMEOUT, statement_timeout),
        "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION,
    }
    options = " ".join(f"-c {key}={round(value * 1000)}" for key, value in limits.items())
    return {
        "connect_timeout": connect_timeout,
        "application_name": name,
        "options": f"{options} -c timezone=UTC -c jit=off",
        # A peer that vanished without a word is noticed in about 30 s (TCP only).
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's code of what went wrong, five characters; None: it did not say."""
    raw = error.orig if isinstance(error, exc.DBAPIError) else error
    return getattr(raw, "pgcode", None)


def _is_outage(error: Exception) -> bool:
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    outages = (
        exc.OperationalError,
        exc.InterfaceError,
        exc.TimeoutError,
        psycopg2.OperationalError,
        psycopg2.InterfaceError,
    )
    return isinstance(error, outages)
