"""Parquet written in row groups. Columns that came with types of Arrow keep them; those of other
tables get the type that all their cells have, else text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from penstock.annotation.files import writing
from penstock.annotation.records import Column, Record, Source
from penstock.annotation.table.arrow import column_type, shape_type
from penstock.annotation.table.cells import plain, repaired
from penstock.annotation.table.csvfile import CsvPass
from penstock.annotation.table.extras import needed
from penstock.annotation.table.parquet import Spot
from penstock.annotation.table.place import check_columns, replacing
from penstock.annotation.table.shapes import Scalar, Shape, fitted, merged, shape_of
from penstock.annotation.table.textsinks import KEPT

GROUP = 20_000  # rows of a row group
GROUP_BYTES = 64 << 20  # of the input's cells, where those are long

#: Records as a table of Arrow, with the input's columns alone.
Own = Callable[[Sequence[Record]], Any]


class ParquetSink:
    """Raises InvalidRequest when a new column has the name of another."""

    def __init__(self, path: Path, source: Source, columns: Sequence[Column]) -> None:
        self._path = path
        self._pa = needed("pyarrow", f"Writing {path.name}")
        self._columns = tuple(columns)
        self._schema, self._own = _own(self._pa, source)
        check_columns(self._schema.names, columns, source.name)
        self._kinds = {column.name: column_type(column) for column in columns}
        self._records: list[Record] = []
        self._added: list[Mapping[str, object]] = []
        self._bytes = 0
        self._writer: Any = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        schema = self._schema
        for name, (kind, _) in self._kinds.items():
            schema = schema.append(self._pa.field(name, kind))
        writer = needed("pyarrow.parquet", f"Writing {self._path.name}").ParquetWriter
        self._open.enter_context(writing(self._path, KEPT))
        file = self._open.enter_context(replacing(self._path))
        self._writer = self._open.enter_context(writer(file, schema))
        self._open.push(self._finish)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.__exit__(*error)  # type: ignore[arg-type]

    def write(self, record: Record, added: Mapping[str, object]) -> None:
        self._records.append(record)
        self._added.append(added)
        self._bytes += _weight(record)
        if len(self._records) >= GROUP or self._bytes >= GROUP_BYTES:
            self._flush()

    def _finish(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()

    def _flush(self) -> None:
        if not self._records:
            return
        table = self._own(self._records)
        for column in self._columns:
            kind, convert = self._kinds[column.name]
            cells = [convert(row.get(column.name)) for row in self._added]
            table = table.append_column(
                self._pa.field(column.name, kind), self._pa.array(cells, kind)
            )
        self._writer.write_table(table, row_group_size=GROUP)
        self._records, self._added, self._bytes = [], [], 0


def _own(pa: Any, source: Source) -> tuple[Any, Own]:
    """The schema of a source's columns, and how its records become a table of it."""
    found = source.read()
    schema = getattr(found, "schema", None)
    if schema is not None:
        return schema, lambda records: pa.Table.from_batches(_slices(records), schema)
    shapes: dict[str, Shape] = dict.fromkeys(found.columns, Scalar.TEXT)
    if not isinstance(found, CsvPass):
        shapes = _shapes(source)
    schema = pa.schema([(repaired(name), shape_type(one)) for name, one in shapes.items()])

    def own(records: Sequence[Record]) -> Any:
        arrays = []
        for name, shape in shapes.items():
            cells = [fitted(plain(record.row.get(name)), shape) for record in records]
            arrays.append(pa.array(cells, shape_type(shape)))
        return pa.table(arrays, schema=schema)

    return schema, own


def _shapes(source: Source) -> dict[str, Shape]:
    """Of all columns, by one look at every cell."""
    shapes: dict[str, Shape] = {}
    found = source.read()
    for record in found:
        for name, cell in record.row.items():
            shapes[name] = merged(shapes.get(name, Scalar.EMPTY), shape_of(plain(cell)))
    return {name: shapes.get(name, Scalar.EMPTY) for name in found.columns}


def _slices(records: Sequence[Record]) -> list[Any]:
    """The rows of the batches from which records came, neighbors together."""
    pieces: list[tuple[Any, int, int]] = []
    for record in records:
        spot = record.raw
        if not isinstance(spot, Spot):
            raise TypeError(f"{record.place} has lost its batch")
        if pieces and pieces[-1][0] is spot.batch and pieces[-1][2] == spot.row:
            pieces[-1] = (spot.batch, pieces[-1][1], spot.row + 1)
        else:
            pieces.append((spot.batch, spot.row, spot.row + 1))
    return [batch.slice(first, end - first) for batch, first, end in pieces]


def _weight(record: Record) -> int:
    """Bytes; of a batch with its first row."""
    if isinstance(record.raw, Spot):
        return int(record.raw.batch.nbytes) if record.raw.row == 0 else 0
    return sum(len(cell) for cell in record.row.values() if isinstance(cell, str))
