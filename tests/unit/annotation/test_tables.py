"""Tables as people have them: what is read, and the sentence for what is not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from penstock.annotation.tables import Row, Table
from penstock.errors import InvalidRequest


def read(path: Path, content: str | bytes) -> list[Row]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(Table(path).rows())


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    return tmp_path / "t.csv"


@pytest.fixture
def json_file(tmp_path: Path) -> Path:
    return tmp_path / "t.jsonl"


def test_quotes_newlines_and_unicode_in_cells(csv_file: Path) -> None:
    rows = read(csv_file, 'id,text\n1,"say ""hi"",\r\nthen go"\n2,日本 \U0001f600\n')

    assert rows == [
        {"id": "1", "text": 'say "hi",\r\nthen go'},
        {"id": "2", "text": "日本 \U0001f600"},
    ]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_any_end_of_line_is_read(csv_file: Path, end: str) -> None:
    rows = read(csv_file, end.join(["id,text", '1,"a', 'b"', "2,c"]))

    assert rows == [{"id": "1", "text": f"a{end}b"}, {"id": "2", "text": "c"}]


def test_carriage_returns_count_as_lines(csv_file: Path) -> None:
    with pytest.raises(InvalidRequest, match="line 3: 1 cells"):
        read(csv_file, "a,b\r1,2\r3\r")


def test_a_byte_order_mark_is_no_part_of_the_first_column(csv_file: Path, json_file: Path) -> None:
    assert read(csv_file, b"\xef\xbb\xbfid,b\r\n1,2\r\n") == [{"id": "1", "b": "2"}]
    assert read(json_file, b'\xef\xbb\xbf{"id": 1}\n') == [{"id": 1}]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_that_of_the_header(csv_file: Path, mark: str) -> None:
    assert read(csv_file, f"a{mark}b\n1{mark}x, y; z\n".replace(", y; z", "")) == [
        {"a": "1", "b": "x"}
    ]


def test_a_header_with_a_foreign_mark_in_quotes(csv_file: Path) -> None:
    assert read(csv_file, '"a;b;c",d\n1,2\n') == [{"a;b;c": "1", "d": "2"}]


def test_a_tsv_file_has_tabs(tmp_path: Path) -> None:
    assert read(tmp_path / "t.tsv", "a\n1,2\n") == [{"a": "1,2"}]


def test_one_column_and_empty_lines(csv_file: Path) -> None:
    assert read(csv_file, 'a\n\n1\n""\n\n2') == [{"a": "1"}, {"a": ""}, {"a": "2"}]


def test_an_empty_file_has_no_rows(csv_file: Path, json_file: Path) -> None:
    assert read(csv_file, "") == []
    assert read(csv_file, "a,b\n") == []
    assert read(json_file, "\n \n") == []


def test_a_cell_of_a_megabyte(csv_file: Path) -> None:
    assert read(csv_file, "a\n" + "x" * 1_000_000 + "\n") == [{"a": "x" * 1_000_000}]


def test_json_keeps_its_types_and_the_columns_of_all_rows(json_file: Path) -> None:
    json_file.write_text('{"a": 1, "b": null}\n\n{"c": [true, "ü"]}')
    table = Table(json_file)

    assert list(table.rows()) == [{"a": 1, "b": None}, {"c": [True, "ü"]}]
    assert list(table.columns) == ["a", "b", "c"]


def test_the_checksum_is_that_of_the_bytes(csv_file: Path) -> None:
    content = b"\xef\xbb\xbfa;b\r\n1;2\r\n"
    csv_file.write_bytes(content)
    table = Table(csv_file)

    assert list(table.rows())
    assert table.checksum == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a,b\n1,2\n3\n", "line 3: 1 cells under 2 columns"),
        (b'a,b\n"x\ny",2\n1,2,3\n', "line 4: 3 cells under 2 columns"),
        (b'a,b\n1,"never closed\n3,4\n', "line 2: not valid CSV"),
        (b'a,b\n1,"x"y\n', "line 2: not valid CSV"),
        (b"a,a\n1,2\n", "line 1: there are two columns named 'a'"),
        (b"a\nf\xfcr\n", "line 2: byte 2 of it is not UTF-8"),
        (b"\xff\xfea\x00", "line 1: byte 1 of it is not UTF-8"),
    ],
)
def test_bad_csv_is_a_sentence_with_its_line(csv_file: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(csv_file, content)

    assert sentence in caught.value.message
    assert str(csv_file) in caught.value.message


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"a": 1}\n{"a": \n', "line 2: not valid JSON"),
        ('{"a": 1}\n[1]\n', "line 2: not a JSON object"),
        ('{"a": NaN}\n', "line 1: JSON that cannot be read (NaN is not JSON)"),
        (
            '{"a": 1}\n{"a": [-Infinity]}\n',
            "line 2: JSON that cannot be read (-Infinity is not JSON)",
        ),
        ('{"a": 1e400}\n', "line 1: JSON that cannot be read (1e400 is too large a number)"),
        ("[" * 100_000, "line 1: JSON that cannot be read"),
        ('{"a": ' + "1" * 5_000 + "}", "line 1: JSON that cannot be read"),
    ],
)
def test_bad_json_is_a_sentence_with_its_line(json_file: Path, content: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(json_file, content)

    assert sentence in caught.value.message


def test_a_line_without_end_is_not_read_into_memory(json_file: Path) -> None:
    with pytest.raises(InvalidRequest, match="longer than 16 MiB"):
        read(json_file, b"x" * (17 * 2**20))


def test_another_extension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"has to end in \.csv"):
        Table(tmp_path / "t.xlsx")
