"""Blobs in a folder: whole or not there, private, and nowhere else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from penstock.errors import NotFound, Unavailable
from penstock.ids import new_id
from storage.blobs import LocalBlobs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "of the service" / "blobs"


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_written_is_read_back_once_it_is_committed(folder: Path) -> None:
    blobs, name = LocalBlobs(folder), new_id("file")
    blob = blobs.create(name)
    for piece in (b"one\n", b"", b"two"):
        blob.write(piece)
    with pytest.raises(NotFound):
        blobs.open(name)

    blob.commit()
    blob.abort()  # without effect

    with blobs.open(name) as stream:
        assert (stream.readline(99), stream.read()) == (b"one\n", b"two")
    assert _names(folder) == {name}


def test_it_is_private_to_its_owner(folder: Path) -> None:
    blobs, name = LocalBlobs(folder), new_id("file")

    blobs.create(name).commit()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_one_that_is_given_up_leaves_nothing(folder: Path) -> None:
    blobs, name = LocalBlobs(folder), new_id("file")
    blob = blobs.create(name)
    blob.write(b"half")

    blob.abort()

    assert _names(folder) == set()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc/passwd", "file_" + "0" * 31 + "/", "file_" + "0" * 33, "a\0b"],
)
def test_no_name_but_an_id_reaches_the_disk(folder: Path, name: str) -> None:
    blobs = LocalBlobs(folder)

    for act in (blobs.create, blobs.open, blobs.delete):
        with pytest.raises(NotFound):
            act(name)
    assert not folder.exists()


def test_what_nobody_wrote_to_for_long_is_found_the_unfinished_too(folder: Path) -> None:
    blobs = LocalBlobs(folder)
    assert list(blobs.idle(0)) == []
    old, broken, young = new_id("file"), new_id("file"), new_id("file")
    blobs.create(old).commit()
    (folder / f"{broken}.part").touch()
    blobs.create(young).commit()
    (folder / "not of ours").touch()
    for path in (folder / old, folder / f"{broken}.part", folder / "not of ours"):
        os.utime(path, (1, 1))

    assert set(blobs.idle(3600)) == {old, broken}

    for name in (old, broken, broken):
        blobs.delete(name)
    assert _names(folder) == {young, "not of ours"}


def test_a_disk_that_cannot_be_written_is_a_store_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("in the way")

    with pytest.raises(Unavailable, match="The store of files is away") as caught:
        LocalBlobs(tmp_path / "blobs").create(new_id("file"))

    assert str(tmp_path) not in caught.value.message
