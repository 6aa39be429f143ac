"""CSV and JSON Lines written row by row. A row that came in the same format goes out byte by byte
as it was, with the new cells after its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Self

from penstock.annotation.files import writing
from penstock.annotation.records import Column, Record, Row, Source
from penstock.annotation.table.cells import as_text, encoded, of_type, plain
from penstock.annotation.table.csvfile import CsvPass
from penstock.annotation.table.extras import needed
from penstock.annotation.table.formats import Compression, Format
from penstock.annotation.table.jsonfile import JsonPass
from penstock.annotation.table.place import check_columns, replacing
from penstock.annotation.table.source import FileSource

KEPT = " The answers are kept: the same command writes them when that is mended."


class TextSink:
    """What both have in common: the file, and how a record becomes bytes."""

    def __init__(self, path: Path, format: Format, columns: Sequence[Column]) -> None:
        if format.compression is Compression.ZSTD:
            needed("zstandard", f"Writing {path.name}")
        self._path = path
        self._format = format
        self._columns = tuple(columns)
        self._file: IO[bytes]
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(writing(self._path, KEPT))
        opened = replacing(self._path, self._format.compression)
        self._file = self._open.enter_context(opened)
        self._file.write(self._head())
        return self

    def __exit__(self, *error: object) -> None:
        self._open.__exit__(*error)  # type: ignore[arg-type]

    def write(self, record: Record, added: Mapping[str, object]) -> None:
        cells = {one.name: of_type(one, added.get(one.name)) for one in self._columns}
        self._file.write(encoded(self._row(record, cells)))

    def _head(self) -> bytes:
        return b""

    def _row(self, record: Record, cells: Row) -> str:
        raise NotImplementedError


class CsvSink(TextSink):
    """Raises InvalidRequest when a new column has the name of another."""

    def __init__(
        self, path: Path, format: Format, source: Source, columns: Sequence[Column]
    ) -> None:
        super().__init__(path, format, columns)
        found = source.read()
        self._same = isinstance(found, CsvPass) and self._keeps(found, source)
        self._delimiter = format.delimiter or ","
        header = ""
        if isinstance(found, CsvPass) and self._same:
            self._delimiter, header = found.header.delimiter, found.header.raw
        self._names = tuple(found.columns) or _all_columns(source)
        check_columns(self._names, columns, source.name)
        self._end = _split(header)[1] or "\n"
        self._header = header or self._joined(self._names) + "\n"

    def _keeps(self, found: CsvPass, source: Source) -> bool:
        """A `.tsv` has tabs whatever came in, and a `.csv` none that are there by its name."""
        inward = source.format.delimiter if isinstance(source, FileSource) else None
        return self._format.delimiter in (None, found.header.delimiter) and not (
            self._format.delimiter is None and inward is not None
        )

    def _head(self) -> bytes:
        own, end = _split(self._header)
        new = self._joined([column.name for column in self._columns])
        return encoded(own + self._delimiter + new + end)

    def _row(self, record: Record, cells: Row) -> str:
        if self._same and isinstance(record.raw, str):
            own, end = _split(record.raw)
        else:
            own, end = self._joined([plain(record.row.get(name)) for name in self._names]), ""
        return own + self._delimiter + self._joined(list(cells.values())) + (end or self._end)

    def _joined(self, cells: Sequence[object]) -> str:
        return self._delimiter.join([self._quoted(as_text(cell)) for cell in cells])

    def _quoted(self, text: str) -> str:
        if self._delimiter in text or '"' in text or "\n" in text or "\r" in text:
            return '"' + text.replace('"', '""') + '"'
        return text


class JsonSink(TextSink):
    """Where the columns are known by the rows alone, a clash of names shows at the row."""

    def __init__(
        self, path: Path, format: Format, source: Source, columns: Sequence[Column]
    ) -> None:
        super().__init__(path, format, columns)
        self._where = source.name
        self._new = frozenset(column.name for column in columns)
        found = source.read()
        self._same = isinstance(found, JsonPass)
        check_columns(found.columns, columns, source.name)

    def _row(self, record: Record, cells: Row) -> str:
        if not self._new.isdisjoint(record.row):
            check_columns([*record.row], self._columns, f"{self._where}, {record.place},")
        if self._same and isinstance(record.raw, str):
            own = record.raw.rstrip()
        else:
            row = {name: plain(cell) for name, cell in record.row.items()}
            own = json.dumps(row, ensure_ascii=False)
        comma = ", " if record.row else ""
        return own[:-1] + comma + json.dumps(cells, ensure_ascii=False)[1:] + "\n"


def _split(raw: str) -> tuple[str, str]:
    """A row and its end of line."""
    own = (
        raw.removesuffix("\n").removesuffix("\r") if raw.endswith("\n") else raw.removesuffix("\r")
    )
    return own, raw[len(own) :]


def _all_columns(source: Source) -> tuple[str, ...]:
    """Of a format that tells them only at the end."""
    found = source.read()
    for _ in found:
        pass
    return tuple(found.columns)
