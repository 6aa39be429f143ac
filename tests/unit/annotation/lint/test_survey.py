"""What is found in a table without asking anyone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from penstock.annotation.lint.distinct import Distinct
from penstock.annotation.lint.prefix import SharedPrefix
from penstock.annotation.lint.survey import DRAWN, Survey, survey
from penstock.annotation.records import Row
from penstock.annotation.table.source import source_of
from penstock.annotation.task.questions import voters
from penstock.annotation.task.task import task_from
from penstock.errors import InvalidRequest


def table(folder: Path, rows: list[Row]) -> Path:
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def surveyed(path: Path, template: str = "Topic of {{ text }}?") -> Survey:
    task = task_from(template, labels=["a", "b"], gold="gold")
    questions = voters(task)[0].questions
    assert questions is not None
    return survey(source_of(path), task, questions, lambda rows: None)


def test_mistakes_are_collected_and_not_only_the_first(tmp_path: Path) -> None:
    rows: list[Row] = [{"text": f"t{n}", "gold": "c" if n % 2 else "a"} for n in range(20)]

    found = surveyed(table(tmp_path, rows))

    assert (found.rows, found.wrong, found.sound, found.gold) == (20, 10, 10, 10)
    assert len(found.mistakes) == 5
    assert "line 3: the column 'gold' has 'c', which is none of the labels" in found.mistakes[0]


def test_duplicates_and_empty_cells_are_told_with_their_places(tmp_path: Path) -> None:
    texts = ["x", "", "y", "x", " "]
    found = surveyed(table(tmp_path, [{"text": text, "gold": ""} for text in texts]))

    assert found.empty == {"text": 2}
    assert found.repeated == 1
    assert found.duplicates == [("line 5", "line 2")]


def test_rows_are_drawn_from_the_whole_table(tmp_path: Path) -> None:
    rows: list[Row] = [{"text": f"t{number}", "gold": ""} for number in range(8 * DRAWN)]

    drawn = surveyed(table(tmp_path, rows)).drawn

    numbers = [row.record.number for row in drawn]
    assert len(set(numbers)) == DRAWN
    assert 3 * DRAWN < sum(numbers) / DRAWN < 5 * DRAWN


def test_a_missing_column_and_an_empty_table_are_refused_at_once(tmp_path: Path) -> None:
    path = table(tmp_path, [{"text": "x", "gold": ""}])
    with pytest.raises(InvalidRequest, match="no column 'body'"):
        surveyed(path, "{{ body }}")
    path.write_text("text,gold\n")
    with pytest.raises(InvalidRequest, match="no rows"):
        surveyed(path)


def test_distinct_texts_are_counted_exactly_and_beyond_that_estimated() -> None:
    few, many = Distinct(), Distinct(most=2_000)
    for number in range(30_000):
        few.add(str(number % 500), f"line {number}")
        many.add(str(number % 15_000), f"line {number}")

    assert (few.count, few.exact, many.exact) == (500, True, False)
    assert many.count == pytest.approx(15_000, rel=0.1)
    assert few.add("7", "line 99999") == "line 7"


def test_a_shared_beginning_is_what_all_prompts_have() -> None:
    plain, turns = SharedPrefix(), SharedPrefix()
    for word in ("alpha", "alps", "also"):
        plain.add(f"Sort: {word}")
        shots = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
        turns.add([*shots, {"role": "user", "content": f"Sort: {word}"}])

    assert plain.prompt == "Sort: al"
    assert turns.prompt == [*shots, {"role": "user", "content": "Sort: al"}]

    plain.add("Another")
    assert plain.prompt is None
