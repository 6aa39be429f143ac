"""Which row is which: its number with a hash of its input cells. Knows no file and no answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.annotation.records import Record
from penstock.errors import InvalidRequest

DIGITS = 16  #: of the hash: 64 bits, since a row is compared with one other only
_ID = re.compile(rf"(\d{{1,15}})-([0-9a-f]{{{DIGITS}}})")


@dataclass(frozen=True, slots=True)
class RowId:
    """A row of a table, and what it held. `number` counts from 0."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}-{self.hash}"

    @classmethod
    def parse(cls, text: object) -> RowId:
        """What `str` made. Raises InvalidRequest for anything else."""
        match = _ID.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise InvalidRequest(f"{text!r} is not the id of a row.", param="file")
        return cls(int(match[1]), match[2])


def row_id(record: Record, columns: Iterable[str] | None) -> RowId:
    """Of a record by its cells in `columns`; by all of them where None."""
    return RowId(record.number, fingerprint(record.row, columns))


def fingerprint(row: Mapping[str, object], columns: Iterable[str] | None) -> str:
    """The same for the same cells in every format, whatever their order. An empty cell is as one
    that is not there, since formats differ in that alone."""
    names = row if columns is None else columns
    cells = {name: cell_text(row.get(name)) for name in names}
    filled = sorted((name, text) for name, text in cells.items() if text)
    return hashlib.sha256(json.dumps(filled).encode()).hexdigest()[:DIGITS]


def cell_text(value: object) -> str:
    """A cell as text: null is nothing, and what is no text is JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
