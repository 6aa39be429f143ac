"""Rows of an annotated table into the file of a review tool. Knows no tool's format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from penstock.annotation.records import Count
from penstock.annotation.rounds.annotated import Annotated
from penstock.annotation.rounds.cells import Answers
from penstock.annotation.rounds.review.form import Form, form_of
from penstock.annotation.rounds.review.item import Item
from penstock.annotation.rounds.review.tools import EXCHANGES, Tool
from penstock.annotation.rounds.rows import cell_text, row_id
from penstock.annotation.rounds.view import Test, counted, silent, test_of
from penstock.annotation.task.expression import Expression
from penstock.errors import InvalidRequest


@dataclass(slots=True)
class Exported:
    """What was written: `rows` of `of`."""

    files: Sequence[Path] = ()
    rows: int = 0
    of: int = 0


def form_for(table: Annotated) -> Form:
    """What people are asked about the rows of a table; the same at its import."""
    models = [model.name for model in table.manifest.models.values()]
    return form_of(table.task, table.input_columns, models[0] if models else "penstock")


def export(
    table: Annotated, tool: Tool, file: Path, where: Expression, count: Count = silent
) -> Exported:
    """Write the rows that `where` is true of. Raises InvalidRequest where it is of none."""
    keep = test_of(where, table.columns, table.source.name)
    done = Exported()
    form = form_for(table)
    items = _items(table, form, keep, done, count)
    first = next(items, None)
    if first is None:
        raise InvalidRequest(
            f"No row of {table.source.name} matches --where, so there is nothing to review.",
            param="where",
        )
    done.files = EXCHANGES[tool].write(file, chain([first], items), form)
    return done


def _items(
    table: Annotated, form: Form, keep: Test, done: Exported, count: Count
) -> Iterator[Item]:
    answers = Answers(table.task)
    for record in counted(table.source.read(), count):
        done.of += 1
        if not keep(record.row):
            continue
        done.rows += 1
        yield Item(
            row=row_id(record, table.manifest.source.columns),
            shown={name: cell_text(record.row.get(c)) for name, c in form.shown.items()},
            suggested=form.suggested(answers.value(record.row)),
            probability=answers.probability(record.row),
        )
