"""A file as a source: the one place that knows which reader belongs to which format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from penstock.annotation.records import Pass
from penstock.annotation.table.csvfile import CsvPass
from penstock.annotation.table.formats import Format, Writing
from penstock.annotation.table.jsonfile import JsonPass
from penstock.annotation.table.parquet import ParquetPass
from penstock.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class FileSource:
    """A table in a file; reading it takes the same memory however long it is."""

    path: Path
    format: Format

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> Pass:
        """A new pass. Raises InvalidRequest for a header that is wrong."""
        match self.format.writing:
            case Writing.CSV:
                return CsvPass(self.path, self.format)
            case Writing.JSONL:
                return JsonPass(self.path, self.format)
            case Writing.PARQUET:
                return ParquetPass(self.path)


def source_of(path: Path) -> FileSource:
    """Raises InvalidRequest for what is no table by its name, or not there to be read."""
    format = Format.of(path, "input")
    if not path.is_file():
        reason = "is no regular file" if path.exists() else "does not exist"
        raise InvalidRequest(f"{path} {reason}.", param="input")
    if not os.access(path, os.R_OK):
        raise InvalidRequest(f"{path} may not be read.", param="input")
    return FileSource(path, format)
