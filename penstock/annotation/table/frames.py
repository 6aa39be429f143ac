"""Tables in memory as sources and sinks, whatever library they are of: what goes in comes out as
the same type with more columns. Knows the libraries' rooms, imports none that is not in use.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from penstock.annotation.records import Column, Record
from penstock.annotation.table.arrow_frames import ArrowTable, Dataset
from penstock.annotation.table.cells import of_type
from penstock.annotation.table.frame import Frame
from penstock.annotation.table.pandas_frames import PandasFrame
from penstock.annotation.table.place import check_columns
from penstock.annotation.table.polars_frames import PolarsFrame
from penstock.annotation.table.row_lists import RowList
from penstock.errors import InvalidRequest

NAME = "The table"

#: By module and class: if an object is one, its module is loaded.
_FRAMES: Mapping[tuple[str, str], Callable[[Any], Frame]] = {
    ("pandas", "DataFrame"): PandasFrame,
    ("polars", "DataFrame"): PolarsFrame,
    ("pyarrow", "Table"): ArrowTable,
    ("datasets", "Dataset"): Dataset,
}
#: Near misses, and what makes a table of them.
_ADVICE: Mapping[tuple[str, str], str] = {
    ("pandas", "Series"): "a pandas Series is one column; give its frame: series.to_frame()",
    ("polars", "LazyFrame"): "a LazyFrame has no rows yet; give lazy.collect()",
    ("polars", "Series"): "a polars Series is one column; give its frame: series.to_frame()",
    ("pyarrow", "RecordBatch"): "give a table: pyarrow.Table.from_batches([batch])",
    ("datasets", "DatasetDict"): "it has several splits; give one of them: dataset['train']",
    ("datasets", "IterableDataset"): "it is a stream; write it to a .parquet file and give that",
}


class FramePass:
    """One pass. The checksum is that of the plain cells, so it is the same in another process."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._hash = hashlib.sha256(json.dumps(frame.columns).encode())

    @property
    def columns(self) -> Sequence[str]:
        return self._frame.columns

    @property
    def schema(self) -> Any:
        """Arrow's, where the table has it; else None."""
        return self._frame.schema

    @property
    def checksum(self) -> str:
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[Record]:
        for number, (row, raw) in enumerate(self._frame.rows()):
            self._hash.update(json.dumps(row).encode())
            yield Record(number, row, f"row {number + 1}", raw)


class FrameSource:
    """A table in memory."""

    name = NAME

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def read(self) -> FramePass:
        return FramePass(self.frame)


class FrameSink:
    """A sink that collects the added cells; `result` is the table with them, once it is left."""

    def __init__(self, frame: Frame, columns: Sequence[Column]) -> None:
        check_columns(frame.columns, columns, NAME)
        self._frame = frame
        self._columns = tuple(columns)
        self._cells: dict[str, list[object]] = {}
        self._result: object = None

    def __enter__(self) -> Self:
        self._cells = {column.name: [None] * self._frame.length for column in self._columns}
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._result = self._frame.with_columns(self._columns, self._cells)
        self._cells = {}

    def write(self, record: Record, added: Mapping[str, object]) -> None:
        for column in self._columns:
            self._cells[column.name][record.number] = of_type(column, added.get(column.name))

    @property
    def result(self) -> Any:
        """Of the type that came. None before the sink was left."""
        return self._result


def source_of_frame(table: object) -> FrameSource:
    """Raises InvalidRequest for what is no table, or has columns that cannot be told apart."""
    return FrameSource(_frame(table))


def frame_sink(table: object, columns: Sequence[Column]) -> FrameSink:
    """Raises InvalidRequest for a column whose name is taken."""
    return FrameSink(_frame(table), columns)


def _frame(table: object) -> Frame:
    for (module, name), frame in _FRAMES.items():
        if _is(table, module, name):
            return frame(table)
    if isinstance(table, list):
        return RowList(table)
    advice = next((text for kind, text in _ADVICE.items() if _is(table, *kind)), None)
    raise InvalidRequest(
        f"A table is a path, a pandas or polars frame, a list of dicts, an Arrow table or a "
        f"Hugging Face dataset, not a {type(table).__name__}" + (f": {advice}." if advice else "."),
        param="table",
    )


def _is(table: object, module: str, name: str) -> bool:
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(table, found)
