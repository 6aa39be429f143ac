"""Tables of a test: read whole, or poured from a source into a sink with one answer for all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from penstock.annotation.records import Column, Record, Row, Type
from penstock.annotation.table.frames import frame_sink, source_of_frame
from penstock.annotation.table.sink import sink_of
from penstock.annotation.table.source import source_of

LABEL = Column("label", Type.TEXT)
EVERY_TYPE = (
    LABEL,
    Column("share", Type.NUMBER),
    Column("count", Type.INTEGER),
    Column("sure", Type.TRUTH),
    Column("all", Type.JSON),
)
ANSWERS: Row = {"label": "x", "share": 0.5, "count": 3, "sure": True, "all": ["ü", "v"]}


def records(path: Path) -> list[Record]:
    return list(source_of(path).read())


def rows(path: Path) -> list[Row]:
    return [record.row for record in records(path)]


def pour(path: Path, into: Path, columns: Sequence[Column] = (LABEL,)) -> bytes:
    """The file that comes of it, with the cells of `ANSWERS`."""
    source = source_of(path)
    with sink_of(into, source, columns) as sink:
        for record in source.read():
            sink.write(record, ANSWERS)
    return into.read_bytes()


def labelled(table: object, columns: Sequence[Column] = EVERY_TYPE) -> object:
    """The table with the cells of `ANSWERS`, and none of them in its first row."""
    with frame_sink(table, columns) as sink:
        for record in source_of_frame(table).read():
            sink.write(record, ANSWERS if record.number else {})
    return sink.result
