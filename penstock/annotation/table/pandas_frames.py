"""A pandas frame as a table. Its index, whatever it is, stays as it is and is no column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.annotation.records import Column, Row, Type
from penstock.annotation.table.cells import plain
from penstock.annotation.table.names import texts
from penstock.annotation.table.shapes import Scalar, fitted
from penstock.errors import InvalidRequest


class PandasFrame:
    """Raises InvalidRequest for columns with several levels, or two of one name."""

    schema = None

    def __init__(self, frame: Any) -> None:
        if frame.columns.nlevels > 1:
            raise InvalidRequest(
                f"The columns of the table have {frame.columns.nlevels} levels; make one of them: "
                "frame.columns = frame.columns.map('_'.join).",
                param="table",
            )
        self._frame = frame
        self.columns = texts(frame.columns)
        self.length = len(frame)

    def rows(self) -> Iterator[tuple[Row, object]]:
        for cells in self._frame.itertuples(index=False, name=None):
            yield dict(zip(self.columns, map(plain, cells), strict=True)), None

    def with_columns(
        self, added: Sequence[Column], cells: Mapping[str, Sequence[object]]
    ) -> object:
        frame = self._frame.copy(deep=False)
        for column in added:
            frame[column.name] = _array(column, cells[column.name])
        return frame


def _array(column: Column, cells: Sequence[object]) -> Any:
    """Of the type that pandas itself gives such values; where some are missing, one that can."""
    import pandas as pd

    if column.type is Type.TEXT:
        return pd.Series(cells, dtype=pd.Series([""]).dtype).array
    if column.type is Type.NUMBER:
        return pd.Series(cells, dtype="float64").array
    if column.type is Type.INTEGER:
        held = [fitted(cell, Scalar.INTEGER) for cell in cells]
        return pd.Series(held, dtype="Int64" if None in held else "int64").array
    if column.type is Type.TRUTH:
        return pd.Series(cells, dtype="boolean" if None in cells else "bool").array
    return pd.Series(cells, dtype="object").array
