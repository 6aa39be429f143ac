"""A part of a table as a table of its own: some of its columns, some of its rows.

Reads through another source; nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from penstock.annotation.records import Count, Pass, Record, Row, Source
from penstock.annotation.task.expression import Expression
from penstock.errors import InvalidRequest

Test = Callable[[Row], bool]
COUNT_EVERY = 2_000  # rows


@dataclass(frozen=True, slots=True)
class View:
    """The rows of `source` that `keep` is true of, numbered anew, with `columns` alone. `said`:
    what `keep` tests, in words."""

    source: Source
    columns: Sequence[str]
    keep: Test | None = None
    said: str = ""

    @property
    def name(self) -> str:
        return self.source.name

    def read(self) -> ViewPass:
        return ViewPass(self.source.read(), self)


class ViewPass:
    """One pass. The checksum is of the whole source, so that any change of it is noticed, and of
    what was taken from it, since another part is another table."""

    def __init__(self, whole: Pass, view: View) -> None:
        self._whole = whole
        self._view = view

    @property
    def columns(self) -> Sequence[str]:
        return self._view.columns

    @property
    def checksum(self) -> str:
        taken = json.dumps([self._whole.checksum, list(self.columns), self._view.said])
        return hashlib.sha256(taken.encode()).hexdigest()

    def __iter__(self) -> Iterator[Record]:
        number = 0
        for record in self._whole:
            if self._view.keep is None or self._view.keep(record.row):
                yield narrowed(record, self._view.columns, number)
                number += 1


def narrowed(record: Record, columns: Sequence[str], number: int) -> Record:
    """A record with some of its columns; its text is no longer that of the row."""
    row = {name: record.row[name] for name in columns if name in record.row}
    return Record(number, row, record.place)


def columns_of(source: Source) -> tuple[str, ...]:
    """All columns of a table, read to its end where only that tells."""
    there = source.read()
    if not there.columns:
        for _ in there:
            pass
    return tuple(there.columns)


def test_of(where: Expression, columns: Sequence[str], name: str) -> Test:
    """A filter of rows. Raises InvalidRequest for a column that the table has not."""
    missing = [column for column in where.names if column not in columns]
    if missing:
        raise InvalidRequest(
            f"{name} has no column {missing[0]!r}, which --where names; "
            f"it has: {', '.join(columns)}.",
            param="where",
        )
    empty = dict.fromkeys(where.names)
    return lambda row: where.holds({**empty, **row})


def counted(records: Iterable[Record], count: Count) -> Iterator[Record]:
    """The same records; `count` hears now and then how many there were."""
    for number, record in enumerate(records, 1):
        yield record
        if number % COUNT_EVERY == 0:
            count(number)


def silent(rows: int) -> None:
    """A count that nobody looks at."""
