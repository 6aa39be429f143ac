"""Answers of a new round written among those of the round before, in the order of the table.

Knows two tables' rows; asks nobody.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from penstock.annotation.records import Column, Record, Sink, Type
from penstock.annotation.rounds.annotated import Annotated
from penstock.annotation.rounds.cells import typed
from penstock.annotation.rounds.view import Test, narrowed
from penstock.annotation.task.task import Task
from penstock.errors import InvalidRequest

ROUND = "round"


@dataclass(frozen=True, slots=True)
class Columns:
    """What a round after the first one adds: `new` by its task, `old` of the rounds before alone,
    and the number of the round that a row's answer is of."""

    new: tuple[Column, ...]
    old: tuple[Column, ...]
    round: Column

    @property
    def all(self) -> tuple[Column, ...]:
        return (*self.new, *self.old, self.round)


def columns_of_round(before: Annotated, task: Task) -> Columns:
    """With `task` instead of that of `before`."""
    new = task.columns
    name = f"{task.prefix}{ROUND}"
    taken = {column.name for column in new} | {name}
    types = {column.name: column.type for column in before.task.columns}
    old = tuple(
        Column(column, types.get(column, Type.TEXT))
        for column in before.manifest.output.columns
        if column not in taken
    )
    return Columns(new, old, Column(name, Type.INTEGER))


class Merged:
    """A sink for the rows that `again` is true of, in their order; all others keep their cells.

    Raises InvalidRequest when the rows are not those of the table.
    """

    def __init__(self, before: Annotated, again: Test, columns: Columns, sink: Sink) -> None:
        self._before = before
        self._again = again
        self._columns = columns
        self._sink = sink
        self._round = before.manifest.round + 1
        self._rows: Iterator[Record] = iter(())

    def __enter__(self) -> Self:
        self._rows = iter(self._before.source.read())
        self._sink.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            try:
                if self._next() is not None:
                    raise self._changed()
            except BaseException:
                self._sink.__exit__(*sys.exc_info())
                raise
        self._sink.__exit__(*error)

    def write(self, record: Record, added: Mapping[str, object]) -> None:
        """The new answer to the next row that is asked again about."""
        row = self._next()
        if row is None or row.place != record.place:
            raise self._changed()
        self._sink.write(self._input(row), {**added, self._columns.round.name: self._round})

    def _next(self) -> Record | None:
        """The next row to be answered anew; those before it are written as they were."""
        for row in self._rows:
            if self._again(row.row):
                return row
            self._sink.write(self._input(row), self._kept(row))
        return None

    def _kept(self, row: Record) -> dict[str, object]:
        cells = {c.name: typed(row.row.get(c.name), c.type) for c in self._columns.all}
        if cells[self._columns.round.name] is None:
            cells[self._columns.round.name] = 1
        return cells

    def _input(self, row: Record) -> Record:
        return narrowed(row, self._before.input_columns, row.number)

    def _changed(self) -> InvalidRequest:
        return InvalidRequest(
            f"{self._before.source.name} has changed since its rows were asked about again; "
            "restore it, or start anew with --fresh.",
            param="table",
        )
