"""`penstock.annotate` against a real stack on the fake model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from examples.stdlib.stack import CHECKOUT, RunningStack
from penstock.annotation.table.frames import source_of_frame
from penstock.errors import InvalidRequest, PenstockError, Unavailable

TEMPLATE = "Is this about trees? {{ text }}"
LABELS = ["yes", "no"]
FRAME = pd.DataFrame(
    {"text": [f"Baum {n}" for n in range(30)], "rank": range(30)}, index=range(100, 130)
)


def answers(table: object) -> list[tuple[object, object]]:
    return [(one.row["label"], one.row["probability"]) for one in source_of_frame(table).read()]


def test_every_kind_of_table_gets_the_same_answers_and_keeps_its_type(stack: RunningStack) -> None:
    def annotated(table: object) -> object:
        return penstock.annotate(table, TEMPLATE, labels=LABELS, url=stack.api_url, progress=False)

    frame = annotated(FRAME)
    others = [
        annotated(pl.from_pandas(FRAME)),
        annotated(pa.Table.from_pandas(FRAME, preserve_index=False)),
        annotated(FRAME.to_dict("records")),
    ]

    assert isinstance(frame, pd.DataFrame)
    pd.testing.assert_frame_equal(frame[["text", "rank"]], FRAME)
    assert set(frame["label"]) <= set(LABELS)
    assert frame["error"].isna().all()
    assert [type(other) for other in others] == [pl.DataFrame, pa.Table, list]
    for other in others:
        assert answers(other) == answers(frame)


def test_a_path_gives_a_path(stack: RunningStack, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(FRAME), tmp_path / "in.parquet")
    task = {"template": TEMPLATE, "labels": LABELS}

    with penstock.Client(stack.api_url) as client:
        done = penstock.annotate(
            tmp_path / "in.parquet", task, client=client, output=tmp_path / "out.parquet"
        )

    assert (done.rows, done.failed, done.problem) == (30, 0, None)
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.column("text").to_pylist() == FRAME["text"].tolist()
    assert written.schema.field("rank").type == pa.int64()
    assert (tmp_path / "out.parquet.penstock.json").exists()


@pytest.mark.parametrize(
    ("table", "overrides", "error", "sentence"),
    [
        (FRAME, {"gold": "nope"}, InvalidRequest, "'nope'"),
        (FRAME, {"nonsense": 1}, InvalidRequest, "'nonsense'"),
        (FRAME.rename(columns={"rank": "label"}), {}, InvalidRequest, "'label' already"),
        (FRAME.iloc[:0], {}, InvalidRequest, "no rows"),
        (FRAME["text"], {}, InvalidRequest, "to_frame"),
        ("in.csv", {}, InvalidRequest, "needs `output`"),
        (FRAME, {"url": "http://127.0.0.1:1"}, Unavailable, "nothing accepts a connection"),
    ],
)
def test_what_is_wrong_is_a_sentence_before_anything_is_sent(
    stack: RunningStack,
    table: object,
    overrides: dict[str, Any],
    error: type[PenstockError],
    sentence: str,
) -> None:
    given: dict[str, Any] = {"url": stack.api_url, "labels": LABELS, **overrides}

    with pytest.raises(error) as caught:
        penstock.annotate(table, TEMPLATE, progress=False, **given)

    assert sentence in caught.value.message


def test_the_page_for_python_does_what_it_says(
    stack: RunningStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (CHECKOUT / "docs" / "how-to" / "python.md").read_text(encoding="utf-8")
    programs = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    monkeypatch.setenv("PENSTOCK_URL", stack.api_url)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    exec(programs.replace("http://127.0.0.1:8000", stack.api_url), names)

    assert (names["done"].rows, names["done"].failed) == (2, 0)
    assert set(names["labelled"]["label"]) <= {"good", "bad"}
    assert names["answers"]["about_error"].isna().all()
    assert pd.read_csv("labelled.csv")["text"].tolist() == names["frame"]["text"].tolist()
