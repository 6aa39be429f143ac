"""Another round: some rows of an annotated table asked again, by another prompt or model.

The round before stays as it is, in its own file; the new one names it in its manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock.annotation.records import Sink, Summary, Watcher
from penstock.annotation.rounds.again import counts_of
from penstock.annotation.rounds.annotated import Annotated
from penstock.annotation.rounds.manifest import (
    Manifest,
    Output,
    Parent,
    beside,
    checksum,
    load,
    manifest_path,
    write,
)
from penstock.annotation.rounds.merged import Columns, Merged, columns_of_round
from penstock.annotation.rounds.review.files import fresh
from penstock.annotation.rounds.view import View, test_of
from penstock.annotation.run.annotation import Annotation, Options
from penstock.annotation.run.ledger import ledger_path
from penstock.annotation.table.sink import sink_of
from penstock.annotation.table.source import source_of
from penstock.annotation.task.expression import Expression
from penstock.annotation.task.task import Task
from penstock.client import Client
from penstock.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Rerun:
    """`where` chooses the rows of `before`; `said` is the expression as it was written."""

    before: Annotated
    where: Expression
    said: str
    task: Task
    output: Path
    options: Options

    def check(self) -> None:
        """Raise InvalidRequest for what can be seen without a service."""
        fresh(self.output, manifest_path(self.output), param="output")
        again = test_of(self.where, self.before.columns, self.before.source.name)
        if not any(again(record.row) for record in self.before.source.read()):
            raise InvalidRequest(
                f"No row of {self.before.source.name} matches --where, "
                "so there is nothing to ask again.",
                param="where",
            )

    def run(self, client: Client, watcher: Watcher) -> Summary:
        """Ask again about the rows and write the new table with its manifest."""
        self.check()
        before = self.before
        again = test_of(self.where, before.columns, before.source.name)
        part = View(before.source, before.input_columns, again, self.said)
        whole = View(before.source, before.input_columns)
        state = ledger_path(self.output)
        annotation = Annotation(part, self.task, client, watcher, state, self.options)
        columns = columns_of_round(before, annotation.task)

        def sink() -> Sink:
            return Merged(before, again, columns, sink_of(self.output, whole, columns.all))

        summary = annotation.run(sink)
        write(manifest_path(self.output), self._manifest(columns))
        return summary

    def _manifest(self, columns: Columns) -> Manifest:
        """What the run wrote of its rows, as a round of the whole table."""
        made = load(manifest_path(self.output))
        before = self.before
        output = Output(
            name=self.output.name,
            sha256=checksum(self.output),
            columns=tuple(column.name for column in columns.all),
        )
        name = beside(before.input_path, self.output)
        parent = Parent(
            name=beside(before.path, self.output),
            sha256=checksum(manifest_path(before.path)),
            where=self.said,
        )
        return made.model_copy(
            update={
                "round": before.manifest.round + 1,
                "source": before.manifest.source.model_copy(update={"name": name}),
                "output": output,
                "counts": counts_of(source_of(self.output), self.task),
                "parent": parent,
            }
        )
