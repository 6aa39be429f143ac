"""The data directory refuses with a sentence, and keeps to itself what it holds."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from penstock.errors import StackError
from penstock.stack.directory import SOCKET_PATH_LIMIT, DataDir, os_errors_as_sentences


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_in_it_is_private(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "data")
    directory.publish({"pid": 1})

    assert mode(directory.root) == 0o700
    assert {mode(path) for path in directory.root.iterdir()} == {0o700, 0o600}
    directory.release()


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    directory = DataDir(tmp_path)

    with pytest.raises(StackError, match=f"in use by another .*process {os.getpid()}"):
        DataDir(tmp_path)

    directory.release()
    DataDir(tmp_path).release()


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from penstock.stack.directory import DataDir\n"
        "DataDir(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    checkout = str(Path(__file__).parents[3])
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": checkout},
        check=False,
    )

    assert killed.returncode == -9
    DataDir(tmp_path).release()


def test_a_nearly_full_disk_is_refused_and_not_locked(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="nearly full"):
        DataDir(tmp_path, min_free=10**18)

    DataDir(tmp_path).release()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.touch()

    with pytest.raises(StackError, match=f"{file} cannot be used: file exists"):
        DataDir(file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(StackError, match="permission denied"):
        DataDir(tmp_path / "data")


def test_a_disk_that_fills_up_is_named() -> None:
    full = pytest.raises(StackError, match="The disk is full: /x cannot be written")
    with full, os_errors_as_sentences(Path("/x")):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("temporary", ["", "long" * 25], ids=["short", "long too"])
def test_a_long_path_has_its_sockets_in_a_short_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: str
) -> None:
    if temporary:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / temporary))
    directory = DataDir(tmp_path / ("long" * 25))

    assert len(os.fsencode(directory.sockets / "pg/.s.PGSQL.5432")) <= SOCKET_PATH_LIMIT
    assert mode(directory.sockets) == 0o700
    directory.release()
    assert not directory.sockets.exists()


def test_what_it_published_goes_when_it_is_released(tmp_path: Path) -> None:
    directory = DataDir(tmp_path)
    directory.publish({"api_url": "http://127.0.0.1:1"})
    assert directory.stack_file.exists()

    directory.release()
    directory.release()

    assert not directory.stack_file.exists()
