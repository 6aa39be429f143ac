"""What cannot be written is said with its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.annotation.files import writing
from penstock.errors import InvalidRequest


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk here")
def test_a_full_disk_is_a_sentence_with_the_path(tmp_path: Path) -> None:
    def fill() -> None:
        with writing(tmp_path / "out.csv"), Path("/dev/full").open("w") as full:
            full.write("x")

    with pytest.raises(InvalidRequest, match=r"out\.csv cannot be written: no space left"):
        fill()
