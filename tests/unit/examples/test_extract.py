"""The dataset: complete, reproducible, and never the same docstring on both sides."""

import csv
import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, astuple
from pathlib import Path

import pytest

from examples.stdlib.extract import (
    Part,
    Row,
    extract,
    group_of,
    grouped_part_of,
    main,
    part_of,
)
from examples.stdlib.prompts import topic_prompt
from examples.stdlib.topics import LABELS
from examples.stdlib.walk import MAX_DOCSTRING, MAX_SIGNATURE
from examples.stdlib.word_count import COLUMN
from penstock.annotation.task.questions import voters
from penstock.annotation.task.task import load_task

ROOT = Path(__file__).parents[3]
TASK = ROOT / "examples" / "stdlib" / "topics.toml"


def _part(name: str) -> list[Row]:
    return [row for row in extract() if part_of(row.docstring) == name]


def test_a_third_of_at_least_a_thousand_rows_is_held_out() -> None:
    rows, heldout = extract(), _part("heldout")

    assert len(heldout) >= 1000
    assert 0.3 < len(heldout) / len(rows) < 0.37


def test_every_docstring_is_distinct_so_that_none_is_on_both_sides() -> None:
    docstrings = Counter(row.docstring for row in extract())

    assert docstrings.most_common(1)[0][1] == 1


def test_no_name_occurs_twice() -> None:
    names = Counter(row.name for row in extract())

    assert names.most_common(1)[0][1] == 1


def test_no_column_is_empty_or_too_long() -> None:
    for row in extract():
        assert all(column.strip() for column in astuple(row)), row
        assert len(row.docstring) <= MAX_DOCSTRING
        assert len(row.signature) <= MAX_SIGNATURE
        assert "0x" not in row.signature, "an address would differ from run to run"


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_both_parts_hold_all_eight_topics(part: str) -> None:
    topics = Counter(row.topic for row in _part(part))

    assert set(topics) == set(LABELS)
    assert len(LABELS) == 8
    assert min(topics.values()) >= 30


@pytest.mark.parametrize(
    ("docstring", "part"),
    [
        ("Return the square root of x.", "train"),
        ("Join two or more pathname components, inserting '/' as needed.", "heldout"),
        ("Append object to the end of the list.", "heldout"),
    ],
)
def test_a_docstring_is_on_the_same_side_on_every_machine(docstring: str, part: str) -> None:
    assert part_of(docstring) == part


def test_the_grouped_split_keeps_a_class_on_one_side() -> None:
    sides: dict[str, set[str]] = {}
    for row in extract():
        sides.setdefault(group_of(row), set()).add(grouped_part_of(row))

    assert all(len(parts) == 1 for parts in sides.values())
    assert {part for parts in sides.values() for part in parts} == {"train", "heldout"}


def test_well_known_names_have_their_row() -> None:
    rows = {row.name: row for row in extract()}

    assert rows["shutil.copytree"].topic == "files"
    assert rows["shutil.copytree"].summary == (
        "Recursively copy a directory tree and return the destination directory."
    )
    assert rows["datetime.datetime.isoformat"].kind == "method"
    assert rows["pathlib.Path"].kind == "class"
    assert rows["str.split"].topic == "text"


def test_another_process_writes_the_same_rows(tmp_path: Path) -> None:
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    main(here, Part.all)

    subprocess.run(
        [sys.executable, "-m", "examples.stdlib.extract", "--output", there, "--part", "all"],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "4711", "SECRET": "not to be found in a signature"},
        check=True,
        capture_output=True,
    )

    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (here, there)}
    assert len(digests) == 1


def test_the_csv_gives_back_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "heldout.csv"

    main(path, Part.heldout)

    with path.open(newline="", encoding="utf-8") as stream:
        assert [Row(**columns) for columns in csv.DictReader(stream)] == _part("heldout")


def test_the_task_asks_what_the_model_was_trained_to_read() -> None:
    row = Row("m.f", "function", "f(x)", "Say {x}.", "Say {x}.", "text")
    task = load_task(TASK)
    [asked, other] = voters(task)

    assert asked.questions is not None
    assert list(asked.questions.ask(asdict(row))) == [topic_prompt(row)]
    assert task.labels == LABELS
    assert (other.column, task.gold) == (COLUMN, "topic")
