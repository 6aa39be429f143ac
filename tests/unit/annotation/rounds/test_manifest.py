"""The manifest beside an output."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.annotation.records import Receipt
from penstock.annotation.rounds.manifest import (
    Counts,
    Input,
    Manifest,
    Model,
    Output,
    beside,
    load,
    manifest_of,
    manifest_path,
    output_path,
    write,
)
from penstock.errors import InvalidRequest


def a_manifest() -> Manifest:
    return Manifest(
        created=1.5,
        source=Input(name="in.csv", sha256="0f", rows=2, columns=("text", "größe")),
        output=Output(name="out.csv", sha256="1f", columns=("label", "error")),
        task={"template": "{{ text }}", "labels": ["a", "b"]},
        task_fingerprint="2f",
        models={"tiny": Model(name="tiny", weights={"model.safetensors": "3f"})},
        counts=Counts(rows=2),
        receipt=Receipt(seconds=2.0, rows=2, prompt_tokens=3, completion_tokens=4),
        history=((0.5, 1), (1.0, 2)),
    )


def test_what_was_written_is_read_again_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = manifest_path(tmp_path / "out.csv")
    write(path, a_manifest())
    assert load(path) == a_manifest()
    assert output_path(path) == tmp_path / "out.csv"
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv.manifest.json"]


def test_an_output_without_a_manifest_has_none(tmp_path: Path) -> None:
    assert manifest_of(tmp_path / "out.csv") is None


def test_the_input_is_called_as_the_output_sees_it(tmp_path: Path) -> None:
    assert beside(tmp_path / "data" / "in.csv", tmp_path / "out" / "out.csv") == "../data/in.csv"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Invalid JSON"),
        ('{"version": 2}', "version: Input should be 1"),
        ('{"created": "soon"}', "created: Input should be a valid number"),
    ],
)
def test_what_is_no_manifest_is_refused_by_file_and_key(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "out.csv.manifest.json"
    path.write_text(text)
    with pytest.raises(InvalidRequest) as refused:
        load(path)
    assert str(path) in refused.value.message
    assert reason in refused.value.message


def test_a_manifest_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="does not exist"):
        load(tmp_path / "out.csv.manifest.json")
    with pytest.raises(InvalidRequest, match="has to end in"):
        output_path(tmp_path / "out.csv")
