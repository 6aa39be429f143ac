"""Outputs: the input's bytes as they were, the new cells beside them, complete or not there."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.annotation.records import Column, Type
from penstock.annotation.table.sink import sink_of
from penstock.annotation.table.source import source_of
from penstock.errors import InvalidRequest
from tests.support.tables import ANSWERS, EVERY_TYPE, LABEL, pour, records, rows
from tests.unit.annotation.table.conftest import Write


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('a,"b"\n"1",  x \n', 'a,"b",label\n"1",  x ,x\n'),
        ("a;b\r\n1;2\r\n3;4", "a;b;label\r\n1;2;x\r\n3;4;x\r\n"),
        ("\ufeffa\n1\n", "\ufeffa,label\n1,x\n"),
        ('a\n"x\r\ny""z"\n\n""\n', 'a,label\n"x\r\ny""z",x\n"",x\n'),
        ("a\r1\r2", "a,label\r1,x\r2,x\r"),
    ],
)
def test_a_row_of_csv_goes_out_byte_by_byte_as_it_came(
    write: Write, tmp_path: Path, content: str, expected: str
) -> None:
    written = pour(write("t.csv", content), tmp_path / "out.csv")

    assert written == expected.encode()


def test_a_row_of_json_goes_out_byte_by_byte_as_it_came(write: Write, tmp_path: Path) -> None:
    path = write("t.jsonl", '{"a":1.50 ,"b" : "\\u00fc \\ud800"}\r\n{}\n')

    written = pour(path, tmp_path / "out.jsonl")

    assert written == b'{"a":1.50 ,"b" : "\\u00fc \\ud800", "label": "x"}\n{"label": "x"}\n'


def test_cells_of_every_type_as_text_and_as_json(write: Write, tmp_path: Path) -> None:
    path = write("t.csv", "a\n1\n")

    text = pour(path, tmp_path / "out.csv", EVERY_TYPE).decode()
    objects = pour(path, tmp_path / "out.jsonl", EVERY_TYPE).decode()

    assert text == 'a,label,share,count,sure,all\n1,x,0.5,3,true,"[""ü"", ""v""]"\n'
    assert json.loads(objects) == {"a": "1", **ANSWERS}


def test_a_cell_that_needs_quotes_gets_them(write: Write, tmp_path: Path) -> None:
    source = source_of(write("t.csv", "a;b\n1;2\n"))

    with sink_of(tmp_path / "out.csv", source, [LABEL]) as sink:
        for record in source.read():
            sink.write(record, {"label": 'x;"y",\nz'})

    assert rows(tmp_path / "out.csv") == [{"a": "1", "b": "2", "label": 'x;"y",\nz'}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'a,b\n"x, y",\n'),
        ("t.csv", '{"a";b\n"x, y";\n'),
        ("t.tsv", "a\tb\nx, y\t\n"),
        ("t.jsonl", '{"a": "x, y"}\n{"b": [1, null]}\n'),
    ],
)
@pytest.mark.parametrize("into", ["out.csv", "out.tsv", "out.jsonl", "out.parquet"])
def test_a_table_can_change_its_format(
    write: Write, tmp_path: Path, name: str, content: str, into: str
) -> None:
    path = write(name, content)

    pour(path, tmp_path / into)

    def texts(row: dict[str, object]) -> dict[str, str]:
        return {
            key: cell if isinstance(cell, str) else json.dumps(cell)
            for key, cell in row.items()
            if cell not in (None, "")
        }

    given = [texts(row | {"label": "x"}) for row in rows(path)]
    assert [texts(row) for row in rows(tmp_path / into)] == given


@pytest.mark.parametrize("into", ["out.csv", "out.parquet"])
def test_what_utf_8_cannot_hold_becomes_its_escape(write: Write, tmp_path: Path, into: str) -> None:
    path = write(
        "t.jsonl", '{"a\\udc80": "\\ud800", "b": {"\\ud800": [1, "x"]}, "c": {"\\ud800": 1}}\n'
    )

    pour(path, tmp_path / into)

    struct = {"\\ud800": 1} if into == "out.parquet" else '{"\\ud800": 1}'

    assert rows(tmp_path / into) == [
        {"a\\udc80": "\\ud800", "b": '{"\\ud800": [1, "x"]}', "c": struct, "label": "x"}
    ]


@pytest.mark.parametrize("into", ["out.csv", "out.jsonl", "out.parquet"])
def test_what_goes_wrong_leaves_the_old_output(write: Write, tmp_path: Path, into: str) -> None:
    source = source_of(write("t.csv", "a\n1\n"))
    (tmp_path / into).write_text("old")

    with pytest.raises(KeyboardInterrupt), sink_of(tmp_path / into, source, [LABEL]) as sink:
        sink.write(next(iter(source.read())), {"label": "x"})
        raise KeyboardInterrupt

    assert (tmp_path / into).read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [into, "t.csv"]


def test_the_half_of_a_killed_process_is_swept_and_that_of_a_living_one_stays(
    write: Write, tmp_path: Path
) -> None:
    into = tmp_path / "out.csv"
    killed, ledger = write(".out.csv.1-1.tmp", "a"), write(".out.csv.json.1-1.tmp", "{")
    source = source_of(write("t.csv", "a\n1\n"))

    with sink_of(into, source, [LABEL]):
        living = {path.name for path in tmp_path.glob(".*.tmp")} - {ledger.name}
        with ThreadPoolExecutor() as pool:
            pool.submit(pour, source.path, into).result()
        assert living <= {path.name for path in tmp_path.glob(".*.tmp")}

    assert len(living) == 1
    assert killed.name not in living
    assert list(tmp_path.glob(".*.tmp")) == [ledger]


@pytest.mark.parametrize("into", ["out.csv", "out.jsonl", "out.parquet"])
@pytest.mark.parametrize(("name", "content"), [("t.csv", "label\n1\n"), ("t.jsonl", '{"label":1}')])
def test_a_name_that_is_taken_is_named(
    write: Write, tmp_path: Path, name: str, content: str, into: str
) -> None:
    with pytest.raises(InvalidRequest, match="has a column 'label' already"):
        pour(write(name, content), tmp_path / into)


def test_a_place_that_cannot_be_written_is_named_before_anything_runs(
    write: Write, tmp_path: Path
) -> None:
    path = write("t.csv", "a\n1\n")
    source = source_of(path)
    (tmp_path / "folder.csv").mkdir()

    for place, sentence in {
        tmp_path / "none" / "out.csv": "is no folder that can be written",
        tmp_path / "folder.csv": "is a folder",
        path: "is the input and the output",
        tmp_path / "out.xlsx": "has to end in",
    }.items():
        with pytest.raises(InvalidRequest, match=sentence):
            sink_of(place, source, [LABEL])


@pytest.mark.parametrize(
    ("into", "package"), [("out.csv.zst", "zstandard"), ("out.parquet", "pyarrow")]
)
def test_a_package_that_is_missing_is_named_before_anything_runs(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, into: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    source = source_of(write("t.csv", "a\n1\n"))

    with pytest.raises(InvalidRequest, match=rf"needs the package {package}: pip install"):
        sink_of(tmp_path / into, source, [LABEL])


def test_a_typed_list_is_a_list_in_parquet_and_a_mixture_is_text(
    write: Write, tmp_path: Path
) -> None:
    labels = {"type": "array", "items": {"type": "string"}}
    columns = [Column("typed", Type.JSON, labels), Column("mixed", Type.JSON)]
    source = source_of(write("t.csv", "a\n1\n2\n"))

    with sink_of(tmp_path / "out.parquet", source, columns) as sink:
        for record in records(tmp_path / "t.csv"):
            sink.write(record, {"typed": ["x"], "mixed": {"a": [1, "b"]}} if record.number else {})

    assert rows(tmp_path / "out.parquet") == [
        {"a": "1", "typed": None, "mixed": None},
        {"a": "2", "typed": ["x"], "mixed": '{"a": [1, "b"]}'},
    ]
