"""A model's revision differs where its weights do."""

from __future__ import annotations

import os
from pathlib import Path

from models.revision import SAMPLE, revision_of


def write(folder: Path, weights: bytes | bytearray) -> None:
    (folder / "model.safetensors").write_bytes(weights)
    os.utime(folder / "model.safetensors", (1, 1))


def test_a_folder_has_the_revision_of_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    large = bytearray(10 * SAMPLE)
    write(tmp_path, large)
    first = revision_of(str(tmp_path), None)
    assert revision_of(str(tmp_path), None) == first

    found = {first}
    for place in (0, len(large) // 2, len(large) - 1):  # trained on: of the size it had
        large[place] = 1
        write(tmp_path, large)
        found.add(revision_of(str(tmp_path), None))
    (tmp_path / "config.json").write_text('{"a": 1}')
    found.add(revision_of(str(tmp_path), None))
    os.utime(tmp_path / "config.json", (2, 2))
    found.add(revision_of(str(tmp_path), None))
    assert len(found) == 6


def test_a_model_of_the_hub_has_its_commit() -> None:
    assert revision_of("someone/model", "abc") == "abc"
    assert revision_of("someone/model", None) == ""
