"""Lists and objects that a task adds have types where the format has them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.annotation.table.sink import sink_of
from penstock.annotation.table.source import source_of
from penstock.annotation.task.task import task_from


def test_labels_shares_and_fields_are_typed_in_parquet(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\na\n")
    source = source_of(tmp_path / "t.csv")
    tags = {"type": "array", "items": {"type": "string"}}
    schema = {"type": "object", "properties": {"tags": tags, "free": {"type": "object"}}}
    tasks = [
        task_from("{{ text }}", labels=["a", "b"], several=True, all_probabilities=True),
        task_from("{{ text }}", fields=schema),
    ]

    found: dict[str, pa.DataType] = {}
    for task in tasks:
        with sink_of(tmp_path / "out.parquet", source, task.columns):
            pass
        written = pq.read_schema(tmp_path / "out.parquet")
        found |= dict(zip(written.names, written.types, strict=True))

    assert found["label"] == found["tags"] == pa.list_(pa.field("element", pa.string()))
    assert found["probabilities"] == pa.struct([("a", pa.float64()), ("b", pa.float64())])
    assert found["free"] == pa.string()
