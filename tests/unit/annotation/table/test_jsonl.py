"""JSON Lines: what is read, and the sentence for what is not."""

from __future__ import annotations

import pytest

from penstock.annotation.table.source import source_of
from penstock.errors import InvalidRequest
from tests.support.tables import rows
from tests.unit.annotation.table.conftest import Write


def test_json_keeps_its_types_and_the_columns_of_all_rows(write: Write) -> None:
    reading = source_of(write("t.jsonl", '{"a": 1, "b": null}\n\n{"c": [true, "ü"]}')).read()

    assert [record.row for record in reading] == [{"a": 1, "b": None}, {"c": [True, "ü"]}]
    assert list(reading.columns) == ["a", "b", "c"]


def test_a_byte_order_mark_is_no_part_of_the_first_row(write: Write) -> None:
    assert rows(write("t.ndjson", b'\xef\xbb\xbf{"id": 1}\n')) == [{"id": 1}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"a": 1}\n{"a": \n', "line 2: not valid JSON"),
        ('{"a": 1}\n[1]\n', "line 2: not a JSON object"),
        ('{"a": NaN}\n', "line 1: JSON that cannot be read (NaN is not JSON)"),
        ('{"a": 1e400}\n', "line 1: JSON that cannot be read (1e400 is too large a number)"),
        ('{"a": 1, "a": 2}\n', "line 1: JSON that cannot be read ('a' is there twice)"),
        ("[" * 100_000, "line 1: JSON that cannot be read"),
        ('{"a": ' + "1" * 5_000 + "}", "line 1: JSON that cannot be read"),
        ("x" * (17 * 2**20), "line 1: it is longer than 16 MiB"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_wrong_is_a_sentence_with_its_line(
    write: Write, content: str, sentence: str
) -> None:
    path = write("t.jsonl", content)

    with pytest.raises(InvalidRequest) as caught:
        rows(path)

    assert sentence in caught.value.message
    assert str(path) in caught.value.message
