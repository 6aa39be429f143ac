"""CSV as people have it: what is read, and the sentence for what is not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from penstock.annotation.table.source import source_of
from penstock.errors import InvalidRequest
from tests.support.tables import pour, records, rows
from tests.unit.annotation.table.conftest import Write


def test_quotes_newlines_and_unicode_in_cells(write: Write) -> None:
    found = rows(write("t.csv", 'id,text\n1,"say ""hi"",\r\nthen go"\n2,日本 \U0001f600\n'))

    assert found == [
        {"id": "1", "text": 'say "hi",\r\nthen go'},
        {"id": "2", "text": "日本 \U0001f600"},
    ]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_any_end_of_line_is_read(write: Write, end: str) -> None:
    found = rows(write("t.csv", end.join(["id,text", '1,"a', 'b"', "2,c"])))

    assert found == [{"id": "1", "text": f"a{end}b"}, {"id": "2", "text": "c"}]


def test_a_record_says_on_which_line_it_begins(write: Write) -> None:
    found = records(write("t.csv", 'a\n\n"x\ny"\nz\n'))

    assert [(one.number, one.place) for one in found] == [(0, "line 3"), (1, "line 5")]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_that_of_the_header(write: Write, mark: str) -> None:
    assert rows(write("t.csv", f"a{mark}b\n1{mark}x\n")) == [{"a": "1", "b": "x"}]


def test_a_header_with_a_foreign_mark_in_quotes(write: Write) -> None:
    assert rows(write("t.csv", '"a;b;c",d\n1,2\n')) == [{"a;b;c": "1", "d": "2"}]


def test_a_tsv_file_has_tabs(write: Write) -> None:
    assert rows(write("t.tsv", "a\n1,2\n")) == [{"a": "1,2"}]


def test_one_column_and_empty_lines(write: Write) -> None:
    assert rows(write("t.csv", 'a\n\n1\n""\n\n2')) == [{"a": "1"}, {"a": ""}, {"a": "2"}]


@pytest.mark.parametrize("content", ["", "a,b\n", "\n\n"])
def test_a_table_without_rows_has_none(write: Write, content: str) -> None:
    assert rows(write("t.csv", content)) == []


def test_a_nul_in_a_cell_is_kept(write: Write, tmp_path: Path) -> None:
    path = write("t.csv", "a\nx\0y\n")

    assert rows(path) == [{"a": "x\0y"}]
    assert pour(path, tmp_path / "out.csv") == b"a,label\nx\0y,x\n"


def test_columns_are_known_before_the_first_row_and_the_checksum_after_the_last(
    write: Write,
) -> None:
    content = b"\xef\xbb\xbfa;b\r\n1;2\r\n"
    reading = source_of(write("t.csv", content)).read()

    assert tuple(reading.columns) == ("a", "b")
    assert [record.row for record in reading] == [{"a": "1", "b": "2"}]
    assert reading.checksum == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a,b\n1,2\n3\n", "line 3: 1 cells under 2 columns"),
        (b"a,b\r1,2\r3\r", "line 3: 1 cells under 2 columns"),
        (b'a,b\n"x\ny",2\n1,2,3\n', "line 4: 3 cells under 2 columns"),
        (b'a,b\n1,"never closed\n3,4\n', "line 2: not valid CSV (a quote is not closed)"),
        (b'a,b\n1,"x"y\n', "line 2: not valid CSV"),
        (b"a,a\n1,2\n", "line 1: there are two columns named 'a'"),
        (b"a\nf\xfcr\n", "line 2: byte 2 of it is not UTF-8"),
        (b"\xff\xfea\x00", "is encoded in UTF-16; save it as UTF-8"),
        (b"a\0\n\0x\0\n\0", "line 1: a column's name has a NUL; save the file as UTF-8"),
        (b"\x1f\x8b\x08\x00", "is compressed by gzip; let its name end in .gz"),
        (b"PK\x03\x04rest", "is a ZIP archive or a spreadsheet; export it as CSV"),
        (b'a\n"' + b"x" * (20 * 2**20) + b'"\n', "line 2: it is longer than 16 MiB"),
        (b'a\n"' + (b"x" * 8191 + b"\n") * 2049, "line 2: a cell is longer than 16 MiB"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_what_is_wrong_is_a_sentence_with_its_line(
    write: Write, content: bytes, sentence: str
) -> None:
    path = write("t.csv", content)

    with pytest.raises(InvalidRequest) as caught:
        rows(path)

    assert sentence in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.csv.bz2", "t.parquet.gz"])
def test_another_ending_is_refused(write: Write, name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"has to end in \.csv|leave out \.gz"):
        source_of(write(name, ""))


def test_what_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()

    with pytest.raises(InvalidRequest, match="does not exist"):
        source_of(tmp_path / "none.csv")
    with pytest.raises(InvalidRequest, match="is no regular file"):
        source_of(tmp_path / "folder.csv")
