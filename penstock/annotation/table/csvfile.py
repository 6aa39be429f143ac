"""CSV read row by row, each with the text that it was read from. Nothing is skipped or guessed
but the delimiter, which is that of the header."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.annotation.records import Record, Row
from penstock.annotation.table.formats import Format
from penstock.annotation.table.lines import BOM, MAX_LINE_BYTES, Lines

DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Header:
    """The first row. `raw` is its text with the byte order mark and the end of line."""

    line: int
    columns: tuple[str, ...]
    delimiter: str
    raw: str


class CsvPass:
    """One pass over a CSV file; the header is read at once. `raw` of a record is its text."""

    def __init__(self, path: Path, format: Format) -> None:
        self._path = path
        self._format = format
        self._lines = Lines(path, format.compression)
        self.header = self._header()

    @property
    def columns(self) -> tuple[str, ...]:
        return self.header.columns

    @property
    def checksum(self) -> str:
        return self._lines.checksum

    def __iter__(self) -> Iterator[Record]:
        columns = self.columns
        number = 0
        for line, cells, raw in _records(self._lines, self.header.delimiter):
            if line == self.header.line:
                continue
            if len(cells) != len(columns):
                raise self._lines.error(f"{len(cells)} cells under {len(columns)} columns", line)
            row: Row = dict(zip(columns, cells, strict=True))
            yield Record(number, row, f"line {line}", raw)
            number += 1

    def _header(self) -> Header:
        delimiter = self._format.delimiter or _delimiter(self._path, self._format)
        lines = Lines(self._path, self._format.compression)
        line, cells, raw = next(_records(lines, delimiter), (0, [], ""))
        if len(set(cells)) < len(cells):
            twice = next(name for name in cells if cells.count(name) > 1)
            raise lines.error(f"there are two columns named {twice!r}", line)
        if any("\0" in name for name in cells):
            raise lines.error("a column's name has a NUL; save the file as UTF-8", line)
        return Header(line, tuple(cells), delimiter, BOM * lines.marked + raw)


def _records(lines: Lines, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """The line on which each record begins, its cells, and its text. Empty lines are none."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    taken: list[str] = []

    def noted() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader = csv.reader(noted(), delimiter=delimiter, strict=True)
    while True:
        taken.clear()
        line = lines.number + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise lines.error(_sentence(str(error)), line) from None
        if cells is None:
            return
        if cells:
            yield line, cells, "".join(taken)


def _sentence(reason: str) -> str:
    if "field limit" in reason:
        longest = MAX_LINE_BYTES // 2**20
        return f"a cell is longer than {longest} MiB; perhaps a quote is not closed"
    if "end of data" in reason:
        return "not valid CSV (a quote is not closed)"
    return f"not valid CSV ({reason})"


def _delimiter(path: Path, format: Format) -> str:
    """The one that gives the first line most cells."""
    header = next(iter(Lines(path, format.compression)), "")
    return max(DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))
