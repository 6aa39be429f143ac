"""Parquet: types kept, row groups in batches, and a sentence for what is damaged."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.errors import InvalidRequest
from tests.support.tables import pour, records, rows

TABLE = pa.table(
    {
        "text": ["a", None, "c"],
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        "at": pa.array([0, None, 1_700_000_000_000_000_001], pa.timestamp("ns", "UTC")),
        "price": pa.array([Decimal("1.10"), None, Decimal("2.00")], pa.decimal128(5, 2)),
        "day": pa.array([datetime.date(2024, 2, 29), None, None]),
        "share": [0.5, float("nan"), float("inf")],
        "tags": [["a"], [], None],
        "inner": [{"n": 1}, None, {"n": None}],
        "bytes": [b"\xff\x00", None, b""],
    }
).replace_schema_metadata({"made by": "us"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "t.parquet", row_group_size=2)
    return tmp_path / "t.parquet"


def test_rows_are_plain_python(path: Path) -> None:
    found = records(path)

    assert found[0].row == {
        "text": "a",
        "kind": "x",
        "at": "1970-01-01T00:00:00+00:00",
        "price": "1.10",
        "day": "2024-02-29",
        "share": 0.5,
        "tags": ["a"],
        "inner": {"n": 1},
        "bytes": "/wA=",
    }
    assert found[1].row == dict.fromkeys(TABLE.column_names) | {"kind": "y", "tags": []}
    assert (found[2].row["share"], found[2].place) == ("inf", "row 3")


def test_parquet_keeps_the_types_of_its_columns(path: Path, tmp_path: Path) -> None:
    pour(path, tmp_path / "out.parquet")

    found = pq.read_table(tmp_path / "out.parquet")

    given = pq.read_table(path)
    assert found.schema.remove(found.num_columns - 1).equals(given.schema)
    equal = given.drop_columns("share")  # nan is not, even itself
    assert found.select(equal.column_names).equals(equal)
    assert found.schema.metadata == {b"made by": b"us"}
    assert found["label"].to_pylist() == ["x"] * 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-20],
        lambda whole: b"a,b\n1,2\n",
        lambda whole: b"",
        lambda whole: whole[:4] + bytes(60) + whole[64:],
    ],
    ids=["end", "csv", "nothing", "pages"],
)
def test_a_damaged_file_is_a_sentence(path: Path, damage: object) -> None:
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(InvalidRequest, match=r"t\.parquet is damaged, or no Parquet file"):
        rows(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "t.parquet")

    with pytest.raises(InvalidRequest, match="has two columns named 'a'"):
        rows(tmp_path / "t.parquet")


def test_text_that_is_not_utf_8_is_named_with_its_column(tmp_path: Path) -> None:
    wrong = pa.array([b"f\xfcr"]).view(pa.string())
    pq.write_table(pa.table({"a": wrong}), tmp_path / "t.parquet")

    with pytest.raises(InvalidRequest, match="rows 1 to 1, column 'a': a cell is not UTF-8"):
        rows(tmp_path / "t.parquet")


def test_a_table_without_rows_has_none(tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 0), tmp_path / "t.parquet")

    pour(tmp_path / "t.parquet", tmp_path / "out.parquet")

    assert pq.read_table(tmp_path / "out.parquet").schema.names == [*TABLE.column_names, "label"]
