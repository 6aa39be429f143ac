"""Files that are complete or not there, and what cannot be written in one sentence with its path.
Knows no format.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from penstock.errors import InvalidRequest


@contextmanager
def writing(path: Path, hint: str = "") -> Iterator[None]:
    """Turn an OSError of the block into an InvalidRequest that names `path`."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidRequest(
            f"{path} cannot be written: {reason}.{hint}", param="output"
        ) from error


def unfinished(path: Path) -> Path:
    """Where `path` is written until it is complete: a hidden name beside it, this thread's own."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends well, and else vanishes; so do the
    halves that processes left which were killed. Durable when the block has ended."""
    _sweep(path)
    fresh = unfinished(path)
    try:
        with _locked(fresh) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _locked(path: Path) -> IO[bytes]:
    """A new file that no `_sweep` takes away."""
    while True:
        file = path.open("wb", buffering=1 << 20)
        with suppress(OSError):  # a file system without locks, where nothing is swept
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it was swept before it was locked


def _sweep(path: Path) -> None:
    """Remove what nobody writes any more."""
    half = re.compile(rf"\.{re.escape(path.name)}\.\d+-\d+\.tmp")
    for left in path.parent.iterdir():
        if half.fullmatch(left.name):
            with suppress(OSError), left.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
