"""The packages' metadata: the text holds the truth, and each field is counted for itself."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from examples.packages.check import Figures, figures
from examples.packages.metadata import packages, write
from examples.packages.run import TASK


def test_the_metadata_of_each_package_holds_its_truth() -> None:
    found = list(packages())

    assert len(found) >= 20
    for row in found:
        for field in ("name", "version", "requires_python"):
            assert str(row.truth[field] or "") in row.metadata
        assert row.truth["typed"] == ("Typing :: Typed" in row.metadata)


def test_the_truth_has_the_types_and_names_that_the_task_asks_for() -> None:
    kinds = {"string": str, "integer": int, "boolean": bool, "null": type(None)}
    asked = tomllib.loads(TASK.read_text())["fields"]["properties"]

    for row in packages(100_000):
        assert list(row.truth) == list(asked)
        for field, value in row.truth.items():
            types = asked[field]["type"]
            names = [types] if isinstance(types, str) else types
            assert isinstance(value, tuple(kinds[name] for name in names)), (row.package, field)
            assert len(str(value)) <= asked[field].get("maxLength", 5), (row.package, field)


def test_the_table_has_a_line_for_each_package(tmp_path: Path) -> None:
    count = write(tmp_path / "packages.jsonl")

    lines = (tmp_path / "packages.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == count
    assert list(json.loads(lines[0])) == ["package", "metadata", "truth"]


def test_a_cell_is_right_only_as_it_is_and_a_failed_row_is_wrong_everywhere(
    tmp_path: Path,
) -> None:
    truth = {"name": "a", "status": 5}
    rows = [
        {"truth": truth, "error": None, "name": "a", "status": 5},
        {"truth": truth, "error": None, "name": "A", "status": None},
        {"truth": {"name": "a", "status": None}, "error": "too long", "name": None, "status": None},
    ]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    found = figures(path)

    assert found == Figures(rows=3, valid=2, right={"name": 1, "status": 1})
    assert found.share("name").middle == pytest.approx(1 / 3, abs=0.1)
