"""An Arrow table and a Hugging Face dataset as tables. Nothing of a dataset is decoded: images and
sounds stay as they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.annotation.records import Column, Row
from penstock.annotation.table.arrow import added_array, rows_of
from penstock.annotation.table.names import texts
from penstock.annotation.table.parquet import Spot

BATCH = 1_000  # rows
WHERE = "The table"


class ArrowTable:
    """Raises InvalidRequest for two columns of one name."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.columns = texts(table.column_names)
        self.length = int(table.num_rows)
        self.schema = table.schema

    def rows(self) -> Iterator[tuple[Row, object]]:
        yield from _rows(self._table.to_batches(max_chunksize=BATCH))

    def with_columns(
        self, added: Sequence[Column], cells: Mapping[str, Sequence[object]]
    ) -> object:
        table = self._table
        for column in added:
            table = table.append_column(*added_array(column, cells[column.name]))
        return table


class Dataset:
    """Its features are kept, and the order in which it shows its rows."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.columns = texts(dataset.column_names)
        self.length = len(dataset)
        self._arrow = dataset.with_format("arrow")
        self.schema = self._arrow[:0].schema

    def rows(self) -> Iterator[tuple[Row, object]]:
        for piece in self._arrow.iter(batch_size=BATCH):
            yield from _rows(piece.to_batches())

    def with_columns(
        self, added: Sequence[Column], cells: Mapping[str, Sequence[object]]
    ) -> object:
        dataset = self._dataset
        for column in added:
            _, array = added_array(column, cells[column.name])
            dataset = dataset.add_column(column.name, array)
        return dataset


def _rows(batches: Sequence[Any]) -> Iterator[tuple[Row, object]]:
    for batch in batches:
        for at, row in enumerate(rows_of(batch, WHERE)):
            yield row, Spot(batch, at)
