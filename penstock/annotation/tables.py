"""Tables read row by row: CSV and JSON Lines, chosen by the file's extension.

A row that is not understood ends the reading with its line; nothing is skipped or guessed.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from penstock.annotation.lines import MAX_LINE_BYTES, Lines
from penstock.errors import InvalidRequest

#: One row by column.
Row = dict[str, object]

DELIMITERS = ",;\t|"


class Format(StrEnum):
    """How a table is written down."""

    CSV = "csv"
    JSONL = "jsonl"

    @classmethod
    def of(cls, path: Path) -> Format:
        """By extension. Raises InvalidRequest for any other."""
        match path.suffix.lower():
            case ".csv" | ".tsv":
                return cls.CSV
            case ".jsonl" | ".ndjson":
                return cls.JSONL
        raise InvalidRequest(f"{path} has to end in .csv, .tsv, .jsonl or .ndjson.")


class Table:
    """One pass over a table. `columns` of a CSV file are known at once, of JSON Lines only as far
    as it was read; `checksum` and the end of `columns` count when the pass is over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.format = Format.of(path)
        self.delimiter = ","
        self.columns: dict[str, None] = {}
        self.line = 0  #: on which the row given last began
        self._lines = Lines(path)

    @property
    def checksum(self) -> str:
        """SHA-256 of the file as it was read."""
        return self._lines.checksum

    def rows(self) -> Iterator[Row]:
        """Every row in order, once. Raises InvalidRequest naming the line of what is wrong."""
        yield from self._csv_rows() if self.format is Format.CSV else self._json_rows()

    def _csv_rows(self) -> Iterator[Row]:
        csv.field_size_limit(MAX_LINE_BYTES)
        self.delimiter = _delimiter(self.path)
        records = csv.reader(iter(self._lines), delimiter=self.delimiter, strict=True)
        header = self._next(records)
        if header is None:
            return
        self.columns = dict.fromkeys(header)
        if len(self.columns) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise self._lines.error(f"there are two columns named {twice!r}")
        while (record := self._next(records)) is not None:
            if len(record) != len(header):
                raise self._lines.error(
                    f"{len(record)} cells under {len(header)} columns", self.line
                )
            yield dict(zip(header, record, strict=True))

    def _next(self, records: Iterator[list[str]]) -> list[str] | None:
        """The next record that is not an empty line."""
        while True:
            self.line = self._lines.number + 1
            try:
                record = next(records, None)
            except csv.Error as error:
                raise self._lines.error(f"not valid CSV ({error})", self.line) from None
            if record != []:
                return record

    def _json_rows(self) -> Iterator[Row]:
        for text in self._lines:
            self.line = self._lines.number
            if not text.strip():
                continue
            row = self._object(text)
            for name in row:
                self.columns.setdefault(name)
            yield row

    def _object(self, text: str) -> Row:
        try:
            row = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        except json.JSONDecodeError as error:
            raise self._lines.error(f"not valid JSON ({error.msg})") from None
        except (ValueError, RecursionError) as error:
            raise self._lines.error(f"JSON that cannot be read ({error})") from None
        if not isinstance(row, dict):
            raise self._lines.error("not a JSON object")
        return row


def _delimiter(path: Path) -> str:
    """A tab in `.tsv`, else the one that gives the first line most cells."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = next(iter(Lines(path)), "")
    return max(DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is too large a number")
    return value


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
