"""COPY from a generator: rows stream into PostgreSQL as they are made. Knows no table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
from sqlalchemy import Connection

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def field(value: str) -> str:
    """One text value, escaped for COPY's text format."""
    return value.translate(_ESCAPES)


def null() -> str:
    return "\\N"


class _Reader:
    """What psycopg2 reads from."""

    def __init__(self, rows: Iterator[str]) -> None:
        self._rows = rows
        self.error: BaseException | None = None
        self._rest = b""

    def read(self, size: int) -> bytes:
        try:
            parts, length = [self._rest], len(self._rest)
            while length < size and (row := next(self._rows, None)) is not None:
                parts.append(row.encode())
                length += len(parts[-1])
        except BaseException as error:
            # psycopg2 would turn it into a database error.
            self.error = error
            raise
        joined = b"".join(parts)
        self._rest = joined[size:]
        return joined[:size]


def copy_rows(conn: Connection, target: str, rows: Iterator[str]) -> None:
    """Copy finished lines into `target`, a table with its columns. Raises the generator's own
    error when it raises one; the transaction is then to be rolled back."""
    reader = _Reader(rows)
    raw = conn.connection.dbapi_connection
    if raw is None:
        raise psycopg2.InterfaceError("The connection is closed.")
    try:
        with closing(raw.cursor()) as cursor:
            cursor.copy_expert(f"COPY {target} FROM STDIN", reader, size=1 << 16)
    except psycopg2.Error:
        if reader.error is not None:
            raise reader.error from None
        raise
