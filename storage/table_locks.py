"""Several tables locked at once for a migration, under a service that runs."""

from __future__ import annotations

import time

from sqlalchemy import Connection, exc, text

from storage.database import sqlstate

PATIENCE = 0.5  #: seconds for the first table, and again for all others
_PAUSE = 0.005  # seconds between two tries
LOCK_NOT_AVAILABLE = "55P03"  #: PostgreSQL's code


def lock_tables(conn: Connection, *tables: str, mode: str = "ACCESS EXCLUSIVE") -> None:
    """All of them until the transaction ends, or an OperationalError with `LOCK_NOT_AVAILABLE`.

    Whoever waits for a lock holds up all who come after it, so it waits shortly. It waits for the
    first table alone, where it holds nothing, and asks for the others without waiting: a writer who
    has one of them and needs the first would be in a deadlock with who waits, and might lose it.
    """
    conn.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE * 1000:.0f}ms'"))
    first, *others = tables
    conn.execute(text(f"LOCK TABLE {first} IN {mode} MODE"))
    deadline = time.monotonic() + PATIENCE
    for table in others:
        while not _lock_now(conn, table, mode, last=time.monotonic() > deadline):
            time.sleep(_PAUSE)  # and not in PostgreSQL, which would see a deadlock; until `last`


def _lock_now(conn: Connection, table: str, mode: str, *, last: bool) -> bool:
    """Whether it was free. Where it was not, the `last` try raises."""
    try:
        with conn.begin_nested():
            conn.execute(text(f"LOCK TABLE {table} IN {mode} MODE NOWAIT"))
    except exc.OperationalError as error:
        if last or sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        return False
    return True
