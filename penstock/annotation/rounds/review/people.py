"""What people answered about rows, several of them about the same one, as one answer each.

Knows no tool; what most of them say counts, and a tie is left open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penstock.annotation.rounds.rows import RowId
from penstock.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Given:
    """What one person did with one row. `cell` is the gold cell; None where they skipped it.
    `settled`: the tool marks this answer as the truth."""

    row: RowId
    cell: str | None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Collected:
    """People's answers by row number. `hashes` has every row of the file, answered or not."""

    cells: Mapping[int, str]
    hashes: Mapping[int, str]
    skipped: int = 0  #: rows that nobody answered
    disputed: int = 0  #: rows about which the people do not all agree
    tied: int = 0  #: of these: without an answer that most of them gave


@dataclass(slots=True)
class _Row:
    hash: str
    cells: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)


def collect(given: Iterable[Given], file: str) -> Collected:
    """One answer a row. Raises InvalidRequest for ids that contradict each other."""
    rows: dict[int, _Row] = {}
    for one in given:
        row = rows.setdefault(one.row.number, _Row(one.row.hash))
        if row.hash != one.row.hash:
            raise InvalidRequest(
                f"{file} has answers to two different tables: row {one.row.number} "
                f"is {row.hash} and {one.row.hash}.",
                param="file",
            )
        if one.cell is not None:
            (row.settled if one.settled else row.cells).append(one.cell)
    return _counted(rows)


def _counted(rows: Mapping[int, _Row]) -> Collected:
    cells: dict[int, str] = {}
    skipped = disputed = tied = 0
    for number, row in rows.items():
        votes = Counter(row.settled or row.cells).most_common()
        skipped += not votes
        disputed += len(votes) > 1
        if len(votes) > 1 and votes[0][1] == votes[1][1]:
            tied += 1
        elif votes:
            cells[number] = votes[0][0]
    hashes = {number: row.hash for number, row in rows.items()}
    return Collected(cells, hashes, skipped, disputed, tied)
