"""A polars frame as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.annotation.records import Column, Row
from penstock.annotation.table.cells import plain, repaired
from penstock.annotation.table.shapes import ListOf, Scalar, Shape, Struct, column_shape, fitted

SLICE = 10_000  # rows that are turned into Python at once


class PolarsFrame:
    """Names of columns are texts that differ in any frame of polars."""

    schema = None

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.columns = tuple(frame.columns)
        self.length = int(frame.height)

    def rows(self) -> Iterator[tuple[Row, object]]:
        for piece in self._frame.iter_slices(SLICE):
            for cells in piece.rows():
                yield dict(zip(self.columns, map(plain, cells), strict=True)), None

    def with_columns(
        self, added: Sequence[Column], cells: Mapping[str, Sequence[object]]
    ) -> object:
        return self._frame.with_columns([_series(one, cells[one.name]) for one in added])


def _series(column: Column, cells: Sequence[object]) -> Any:
    import polars as pl

    shape = column_shape(column, cells)
    return pl.Series(column.name, [fitted(cell, shape) for cell in cells], _dtype(pl, shape))


def _dtype(pl: Any, shape: Shape) -> Any:
    if isinstance(shape, ListOf):
        return pl.List(_dtype(pl, shape.member))
    if isinstance(shape, Struct):
        return pl.Struct({repaired(name): _dtype(pl, inner) for name, inner in shape.fields})
    leaves = {
        Scalar.TRUTH: pl.Boolean,
        Scalar.INTEGER: pl.Int64,
        Scalar.NUMBER: pl.Float64,
    }
    return leaves.get(shape, pl.String)
