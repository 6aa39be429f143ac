"""Two annotated tables side by side, row by row; that they hold the same rows is checked.

Knows the answers of both; draws no conclusion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from penstock.annotation.records import Count, Record, Source
from penstock.annotation.rounds.annotated import Annotated
from penstock.annotation.rounds.rows import fingerprint
from penstock.annotation.rounds.view import counted, silent
from penstock.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Pair:
    """The same row in both."""

    a: Record
    b: Record


def pairs(a: Annotated, b_source: Source, count: Count = silent) -> Iterator[Pair]:
    """Every row of both tables, by its number. Raises InvalidRequest for the first that is not
    the same row in both, or is missing in one."""
    columns = a.manifest.source.columns
    for one, other in zip_longest(counted(a.source.read(), count), b_source.read()):
        if one is None or other is None:
            short, place = (a.source, other) if one is None else (b_source, one)
            raise InvalidRequest(
                f"{short.name} ends before {place.place} of the other: they are not "
                "annotations of the same rows.",
                param="tables",
            )
        if not _same(one, other, columns):
            raise InvalidRequest(
                f"{a.source.name}, {one.place}, and {b_source.name}, {other.place}, "
                "are not the same row: their input cells differ.",
                param="tables",
            )
        yield Pair(one, other)


def _same(one: Record, other: Record, columns: Sequence[str]) -> bool:
    """Cell by cell, which is quick; by fingerprint where formats write cells differently."""
    if all(one.row.get(name) == other.row.get(name) for name in columns):
        return True
    return fingerprint(one.row, columns) == fingerprint(other.row, columns)
