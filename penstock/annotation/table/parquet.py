"""Parquet read in batches, each record with the batch that holds it. Writes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.annotation.records import Record
from penstock.annotation.table.arrow import rows_of
from penstock.annotation.table.extras import needed
from penstock.annotation.table.names import texts
from penstock.errors import InvalidRequest

BATCH = 1_000  # rows
BUFFER = 1 << 20  # bytes of a column that are read at once


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a record lies: a record batch of Arrow and the row in it."""

    batch: Any
    row: int


class ParquetPass:
    """One pass. The schema is read at once; `raw` of a record is its `Spot`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parquet = needed("pyarrow.parquet", f"Reading {path.name}")
        with self._opened() as file:
            self.schema = file.schema_arrow
        self.columns = texts(self.schema.names, str(path))
        self.checksum = ""

    def __iter__(self) -> Iterator[Record]:
        number = 0
        with self._path.open("rb") as bytes_of, self._opened() as file:
            for batch in file.iter_batches(BATCH):
                where = f"{self._path}, rows {number + 1} to {number + batch.num_rows}"
                for at, row in enumerate(rows_of(batch, where)):
                    yield Record(number, row, f"row {number + 1}", Spot(batch, at))
                    number += 1
            self.checksum = hashlib.file_digest(bytes_of, "sha256").hexdigest()

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        exceptions = needed("pyarrow", "Parquet").ArrowException
        try:
            with self._parquet.ParquetFile(
                self._path, buffer_size=BUFFER, pre_buffer=False
            ) as file:
                yield file
        except (exceptions, OSError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0].rstrip(".")
            raise InvalidRequest(
                f"{self._path} is damaged, or no Parquet file: {reason}.", param="input"
            ) from None
