"""The demo's picture, with and without what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.stdlib import picture
from penstock.annotation.report.about import report_of

TABLE = """name,topic,label,probability,needs_review,error
os.walk,files,files,0.9,false,
os.link,files,text,0.4,true,
re.sub,text,text,0.7,false,
"""


@pytest.mark.parametrize("gold", ["topic", None])
def test_the_picture_is_a_png(tmp_path: Path, gold: str | None) -> None:
    table, path = tmp_path / "labelled.csv", tmp_path / "demo.png"
    table.write_text(TABLE)

    picture.draw(path, report_of(table, gold=gold), [(0.0, 0), (1.5, 3)])

    assert path.read_bytes().startswith(b"\x89PNG")
