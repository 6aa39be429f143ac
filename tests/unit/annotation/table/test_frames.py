"""Tables in memory: the same type comes back, with what was in it as it was."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from penstock.annotation.table.frames import frame_sink, source_of_frame
from penstock.errors import InvalidRequest
from tests.support.tables import ANSWERS, EVERY_TYPE, LABEL, labelled

PANDAS = pd.DataFrame(
    {
        "text": ["a", None],
        "share": [float("nan"), 1.5],
        "at": [pd.Timestamp("2024-01-01"), pd.NaT],
        "count": pd.array([1, None], "Int64"),
        "kind": pd.Categorical(["x", "y"]),
        "any": [Decimal("1.1"), {"a": np.array([1, 2])}],
        7: [np.datetime64("2024-01-01", "ns"), pd.NA],
    },
    index=pd.MultiIndex.from_tuples([("i", 1), ("i", 1)]),
)


def rows(table: object) -> list[dict[str, object]]:
    return [record.row for record in source_of_frame(table).read()]


def test_pandas_cells_are_plain_and_what_is_missing_is_none() -> None:
    assert rows(PANDAS) == [
        {
            "text": "a",
            "share": None,
            "at": "2024-01-01T00:00:00",
            "count": 1,
            "kind": "x",
            "any": "1.1",
            "7": "2024-01-01T00:00:00",
        },
        {
            "text": None,
            "share": 1.5,
            "at": None,
            "count": None,
            "kind": "y",
            "any": {"a": [1, 2]},
            "7": None,
        },
    ]


def test_pandas_keeps_index_and_types_and_is_not_changed_itself() -> None:
    frame = PANDAS.rename(columns={"count": "number", "share": "part"})

    found: Any = labelled(frame)

    pd.testing.assert_frame_equal(found[list(frame.columns)], frame)
    assert list(frame.columns) == list(PANDAS.rename(columns={"count": "number", "share": "part"}))
    added = found[[column.name for column in EVERY_TYPE]]
    assert [str(kind) for kind in added.dtypes] == ["str", "float64", "Int64", "boolean", "object"]
    assert added.iloc[1].to_dict() == ANSWERS
    assert added.iloc[0].isna().all()


def test_polars_keeps_its_types_and_gets_a_list_of_texts() -> None:
    frame = pl.DataFrame(
        {
            "at": [datetime.datetime(2024, 1, 1), None],
            "tags": [["a"], []],
            "inner": [{"n": 1}, None],
            "kind": pl.Series(["x", "y"], dtype=pl.Categorical),
        }
    )

    found: Any = labelled(frame)

    assert found.select(frame.columns).equals(frame)
    assert found.schema["all"] == pl.List(pl.String)
    assert found.row(1, named=True).items() >= ANSWERS.items()
    assert rows(frame)[0] == {
        "at": "2024-01-01T00:00:00",
        "tags": ["a"],
        "inner": {"n": 1},
        "kind": "x",
    }


def test_arrow_keeps_its_types() -> None:
    table = pa.table({"at": pa.array([1, None], pa.timestamp("ns")), "n": pa.array([1, 2], "i1")})

    found: Any = labelled(table)

    assert found.select(table.column_names).equals(table)
    assert found.schema.field("all").type == pa.list_(pa.string())
    assert found.slice(1).drop_columns(table.column_names).to_pylist() == [ANSWERS]


def test_a_dataset_keeps_its_features_and_the_order_that_it_shows() -> None:
    datasets.disable_progress_bars()
    features = datasets.Features({"n": datasets.Value("int8"), "y": datasets.ClassLabel(2)})
    whole = datasets.Dataset.from_dict({"n": [0, 1, 2], "y": [0, 1, 1]}, features=features)
    dataset = whole.select([2, 0])

    found: Any = labelled(dataset)

    assert rows(dataset) == [{"n": 2, "y": 1}, {"n": 0, "y": 0}]
    assert {name: found.features[name] for name in features} == features
    assert found[1] == {"n": 0, "y": 0, **ANSWERS}


def test_a_list_of_dicts_need_not_have_the_same_columns() -> None:
    table: list[dict[str, object]] = [{"a": float("nan")}, {"b": {"y", "x"}}]

    assert rows(table) == [{"a": None}, {"b": ["x", "y"]}]
    assert labelled(table, [LABEL]) == [
        {**table[0], "label": None},
        {"b": {"x", "y"}, "label": "x"},
    ]


@pytest.mark.parametrize(
    "empty",
    [PANDAS.iloc[:0, :1], pl.DataFrame({"a": []}), pa.table({"a": pa.array([], "i1")}), []],
    ids=lambda table: type(table).__module__,
)
def test_a_table_without_rows_gets_its_columns(empty: Any) -> None:
    found: Any = labelled(empty)

    assert type(found) is type(empty)
    assert len(found) == 0
    names = getattr(found, "column_names", getattr(found, "columns", None))
    assert names is None or list(names)[1:] == [column.name for column in EVERY_TYPE]


def test_nested_answers_of_one_shape_are_typed_and_others_are_json() -> None:
    def kind(*answers: object) -> Any:
        table = pa.table({"a": list(range(len(answers)))})
        with frame_sink(table, [EVERY_TYPE[-1]]) as sink:
            for record in source_of_frame(table).read():
                sink.write(record, {"all": answers[record.number]})
        return sink.result.schema.field("all").type

    assert kind({"n": 1}, None, {"n": 1.5}) == pa.struct([("n", pa.float64())])
    assert kind([], [{"n": True}]) == pa.list_(pa.struct([("n", pa.bool_())]))
    assert kind({"n": 1}, {"m": 1}) == pa.string()
    assert kind([1, "a"]) == pa.string()
    assert kind([2**70]) == pa.string()


def test_the_checksum_is_of_the_cells() -> None:
    def checksum(frame: object) -> str:
        reading = source_of_frame(frame).read()
        assert list(reading)
        return reading.checksum

    assert checksum([{"a": 1}]) == checksum(pd.DataFrame({"a": [1]}))
    assert checksum([{"a": 1}]) != checksum([{"a": 2}])
    assert checksum([{"a": None}]) != checksum([{"b": None}])


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (pl.LazyFrame({"a": [1]}), r"not a LazyFrame: .* give lazy\.collect\(\)"),
        (pd.Series([1]), r"not a Series: .* series\.to_frame\(\)"),
        (datasets.DatasetDict(), r"not a DatasetDict: .* dataset\['train'\]"),
        ({"a": [1]}, "not a dict"),
        (None, "not a NoneType"),
        ([{"a": 1}, [2]], "Row 2 of the table is no dict but a list"),
        ([{1: 2}], "Row 1 of the table has a column 1; names of columns are strings"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns named 'a'"),
        (pd.DataFrame([[1, 2]], columns=["1", 1]), "two columns named '1'"),
        (pd.DataFrame([[1]], columns=[["a"], ["b"]]), "have 2 levels; make one of them"),
        (pa.table([[1], [2]], names=["a", "a"]), "two columns named 'a'"),
        (pd.DataFrame({"label": [1]}), "The table has a column 'label' already"),
    ],
)
def test_what_is_no_table_is_a_sentence(table: object, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        labelled(table)
