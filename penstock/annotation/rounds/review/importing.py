"""People's answers into a table as a gold column, each beside the very row it was asked about.

A table that changed since the export is refused before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.annotation.records import Column, Count, Record, Source, Type
from penstock.annotation.rounds.annotated import Annotated
from penstock.annotation.rounds.manifest import (
    Output,
    Parent,
    beside,
    checksum,
    manifest_path,
    write,
)
from penstock.annotation.rounds.review.exporting import form_for
from penstock.annotation.rounds.review.files import fresh
from penstock.annotation.rounds.review.people import Collected, collect
from penstock.annotation.rounds.review.tools import EXCHANGES, Tool
from penstock.annotation.rounds.rows import fingerprint
from penstock.annotation.rounds.view import View, columns_of, counted, silent
from penstock.annotation.table.sink import sink_of
from penstock.annotation.table.source import source_of
from penstock.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written. `rows` of the table, `gold` of them with gold now."""

    people: Collected
    rows: int
    gold: int


@dataclass(frozen=True, slots=True)
class Import:
    """`into`: the table that gets the column, where it is not the annotated one itself."""

    file: Path
    tool: Tool
    table: Annotated
    output: Path
    column: str = "gold"
    into: Path | None = None
    count: Count = silent

    def run(self) -> Imported:
        """Write `output`. Raises InvalidRequest for what does not belong to the table."""
        fresh(self.output, manifest_path(self.output), param="output")
        form = form_for(self.table)
        people = collect(EXCHANGES[self.tool].read(self.file, form), str(self.file))
        if not people.cells:
            raise InvalidRequest(f"{self.file} has no answer of anybody yet.", param="file")
        source = self.table.source if self.into is None else source_of(self.into)
        columns = columns_of(source)
        self._check_column(columns)
        self._check_rows(source, people)
        done = self._write(source, columns, people)
        if self.into is None:
            self._write_manifest()
        return done

    def _check_column(self, columns: Sequence[str]) -> None:
        if self.column in self.table.manifest.output.columns:
            raise InvalidRequest(
                f"{self.column!r} is a column of the annotation, not of people; "
                "name another with --column.",
                param="column",
            )
        if self.column in columns and self.column in self.table.manifest.source.columns:
            raise InvalidRequest(
                f"The table came with a column {self.column!r}; name another with --column.",
                param="column",
            )

    def _check_rows(self, source: Source, people: Collected) -> None:
        open_rows = dict(people.hashes)
        for record in counted(source.read(), self.count):
            expected = open_rows.pop(record.number, None)
            if expected is not None and expected != self._hash(record):
                raise InvalidRequest(
                    f"{source.name}, {record.place}, is not the row that was exported: "
                    "the table has changed since, or it is another.",
                    param="table",
                )
        if open_rows:
            raise InvalidRequest(
                f"{source.name} has no row {min(open_rows)}, to which {self.file} has an answer: "
                "the table has changed since, or it is another.",
                param="table",
            )

    def _hash(self, record: Record) -> str:
        return fingerprint(record.row, self.table.manifest.source.columns)

    def _write(self, source: Source, columns: Sequence[str], people: Collected) -> Imported:
        rows = gold = 0
        if there := self.column in columns:
            # Gold of an earlier review stays where nobody said anything new.
            kept = View(source, [name for name in columns if name != self.column])
        target: Source = kept if there else source
        with sink_of(self.output, target, [Column(self.column, Type.TEXT)]) as sink:
            for record in counted(source.read(), self.count):
                cell = people.cells.get(record.number) or record.row.get(self.column)
                if there:
                    row = {k: v for k, v in record.row.items() if k != self.column}
                    record = replace(record, row=row, raw=None)  # noqa: PLW2901
                sink.write(record, {self.column: cell or None})
                rows += 1
                gold += bool(cell)
        return Imported(people, rows, gold)

    def _write_manifest(self) -> None:
        """That of the table, so that another round can start from what was written."""
        before = self.table.manifest
        output = Output(
            name=self.output.name, sha256=checksum(self.output), columns=before.output.columns
        )
        source = before.source.model_copy(
            update={"name": beside(self.table.input_path, self.output)}
        )
        parent = Parent(
            name=beside(self.table.path, self.output),
            sha256=checksum(manifest_path(self.table.path)),
        )
        made = before.model_copy(update={"source": source, "output": output, "parent": parent})
        write(manifest_path(self.output), made)
