"""What the demo makes of an annotated table."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from examples.stdlib import picture
from examples.stdlib.score import Score, confusion_table, read_marked, sample_table

TABLE = """name,topic,answer
os.walk,files,files
os.link,files,text
re.sub,text, text
re.[b]x,text,Text about text
os.stat,files,
"""


@pytest.fixture
def score(tmp_path: Path) -> Score:
    path = tmp_path / "annotated.csv"
    path.write_text(TABLE)
    return read_marked(path)


def shown(table: object) -> str:
    screen = StringIO()
    Console(file=screen, width=80).print(table)
    return screen.getvalue()


def test_only_the_gold_topic_itself_is_right(score: Score) -> None:
    assert score.accuracy == 2 / 5
    assert score.majority == ("files", 3 / 5)
    assert score.by_topic() == {"files": (1 / 3, 3), "text": (1 / 2, 2)}


def test_answers_that_are_no_topic_have_a_column_of_their_own(score: Score) -> None:
    lines = [line.split() for line in shown(confusion_table(score)).splitlines()]

    assert next(line for line in lines if line[:1] == ["files"] and "33%" in line)[1:] == [
        *("1", "·", "1", "·", "·", "·", "·", "·", "1", "33%")
    ]


def test_the_sample_shows_names_as_they_are(score: Score) -> None:
    text = shown(sample_table(score, 5))

    assert "re.[b]x" in text
    assert (text.count("right"), text.count("wrong")) == (2, 3)


def test_the_picture_is_a_png(tmp_path: Path, score: Score) -> None:
    path = tmp_path / "demo.png"

    picture.draw(path, [(0.0, 0), (1.5, 5)], score.by_topic(), 0.6)

    assert path.read_bytes().startswith(b"\x89PNG")
