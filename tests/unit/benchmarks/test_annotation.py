"""The benchmark of a large table notices a byte that differs, a row that is missing or too many."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.annotation import HEADER, failures, row
from penstock.annotation.records import Column, Type
from penstock.annotation.table.sink import sink_of
from penstock.annotation.table.source import source_of

ROWS = 50
COLUMNS = [
    Column("label", Type.TEXT),
    Column("error", Type.TEXT),
    Column("prompt_tokens", Type.INTEGER),
    Column("completion_tokens", Type.INTEGER),
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Annotated, with an error in every tenth row."""
    table = tmp_path / "in.csv"
    table.write_bytes(HEADER + b"".join(row(number, ROWS) for number in range(ROWS)))
    source = source_of(table)
    with sink_of(tmp_path / "out.csv", source, COLUMNS) as sink:
        for record in source.read():
            sink.write(record, {"error": None if record.number % 10 else "failed: so it is"})
    return tmp_path / "out.csv"


def test_rows_as_they_were_are_counted_with_their_errors(output: Path) -> None:
    found = list(failures(output, ROWS))

    assert (len(found), sum(found)) == (ROWS, 5)


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda whole: whole.replace(b"Row 20 of", b"Row 20  of"),
        lambda whole: whole.replace(b"\r\n", b"\n", 1),
        lambda whole: whole[: whole.rindex(b"49,")],
        lambda whole: whole + b"50,more,\n",
        lambda whole: whole.replace(b"text", b"txt", 1),
    ],
    ids=["cell", "end of line", "missing", "more", "header"],
)
def test_a_difference_is_noticed(output: Path, spoiled: object) -> None:
    assert callable(spoiled)
    output.write_bytes(spoiled(output.read_bytes()))

    assert len(list(failures(output, ROWS))) != ROWS
