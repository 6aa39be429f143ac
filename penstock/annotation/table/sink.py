"""A file as a sink: the one place that knows which writer belongs to which format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock.annotation.records import Column, Sink, Source
from penstock.annotation.table.formats import Format, Writing
from penstock.annotation.table.parquetsink import ParquetSink
from penstock.annotation.table.place import check_place
from penstock.annotation.table.textsinks import CsvSink, JsonSink


def sink_of(path: Path, source: Source, columns: Sequence[Column]) -> Sink:
    """Raises InvalidRequest where `path` cannot be written or is no table by its name, and for a
    column whose name is taken. Writes nothing before it is entered."""
    format = Format.of(path, "output")
    check_place(path, source)
    match format.writing:
        case Writing.CSV:
            return CsvSink(path, format, source, columns)
        case Writing.JSONL:
            return JsonSink(path, format, source, columns)
        case Writing.PARQUET:
            return ParquetSink(path, source, columns)
