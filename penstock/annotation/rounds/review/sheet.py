"""A CSV file for a spreadsheet: an empty column for each answer out, the same file filled in.

Reads the delimiters that spreadsheets write; several lines of one row are several people.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from penstock.annotation.rounds.review.files import creating, fresh, read_text
from penstock.annotation.rounds.review.form import ROW, Asks, Control, Form, refused
from penstock.annotation.rounds.review.item import Item
from penstock.annotation.rounds.review.people import Given
from penstock.annotation.rounds.rows import RowId, cell_text
from penstock.errors import InvalidRequest

ANSWER = "your_"  #: before the name of a control: what people fill in
SUGGESTED = "model_"  #: before the name of a control: what the model said
DELIMITERS = ",;\t"


def write(path: Path, items: Iterable[Item], form: Form) -> list[Path]:
    """The file, with a byte order mark, without which spreadsheets garble umlauts."""
    fresh(path)
    names = [control.name for control in form.controls]
    suggested = [f"{SUGGESTED}{name}" for name in names]
    answers = [f"{ANSWER}{name}" for name in names]
    with creating(path, "utf-8-sig") as file:
        rows = csv.writer(file)
        rows.writerow([ROW, *form.shown, *suggested, "probability", *answers])
        for item in items:
            said = [cell_text(item.suggested.get(name)) for name in names]
            sure = "" if item.probability is None else f"{item.probability:.6g}"
            shown = [item.shown[name] for name in form.shown]
            rows.writerow([str(item.row), *shown, *said, sure, *("" for _ in names)])
    return [path]


def read(path: Path, form: Form) -> Iterator[Given]:
    """What was filled in. A row without any answer was skipped."""
    text = read_text(path)
    header = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header.count)
    rows = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter)
    needed = [ROW, *(f"{ANSWER}{control.name}" for control in form.controls)]
    missing = [name for name in needed if name not in (rows.fieldnames or ())]
    if missing:
        raise InvalidRequest(f"{path} has no column {missing[0]!r}.", param="file")
    for cells in rows:
        if any(cells.values()):
            row = RowId.parse(cells[ROW])
            yield Given(row, _cell(cells, form, path, row))


def _cell(cells: Mapping[str, str], form: Form, path: Path, row: RowId) -> str | None:
    taken: dict[str, object] = {}
    for control in form.controls:
        given = cells[f"{ANSWER}{control.name}"] or ""
        if not given.strip():
            continue
        try:
            taken[control.name] = control.take(_typed_in(given, control))
        except ValueError as error:
            raise refused(str(path), row, control, error) from None
    return form.gold(taken) if taken else None


def _typed_in(given: str, control: Control) -> object:
    """Several labels as people type them: with commas or semicolons between them."""
    if control.asks is not Asks.SEVERAL or given.strip().startswith("["):
        return given
    return [part.strip() for part in given.replace(";", ",").split(",") if part.strip()]
