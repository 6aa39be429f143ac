"""The second annotator of the demo: what it says stands beside every row, and is worth a vote."""

from __future__ import annotations

import csv
from pathlib import Path

from examples.stdlib.extract import part_of
from examples.stdlib.topics import LABELS
from examples.stdlib.word_count import write_heldout


def test_the_word_count_guesses_most_topics_of_rows_that_it_has_not_read(tmp_path: Path) -> None:
    path = tmp_path / "heldout.csv"

    count = write_heldout(path, 200)

    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert count == len(rows) == 200
    assert {part_of(row["docstring"]) for row in rows} == {"heldout"}
    assert {row["word_count"] for row in rows} <= set(LABELS)
    assert sum(row["word_count"] == row["topic"] for row in rows) >= 150
