"""Where the content of uploaded files is kept: byte for byte, under a name that is an id.

Knows no owner and no table. `LocalBlobs` is a folder; several API processes have to share it.
`s3_blobs.py` keeps them in a bucket.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from penstock.errors import NotFound, Unavailable

_NAME: Final = re.compile(r"[a-z]{1,16}_[0-9a-f]{32}")
_UNFINISHED: Final = ".part"


def is_blob_name(name: str) -> bool:
    """An id and nothing else, so that no name leads out of a folder."""
    return _NAME.fullmatch(name) is not None


def checked(name: str) -> str:
    """The name. Raises `NotFound` for what is none."""
    if not is_blob_name(name):
        raise NotFound("There is no such blob.")
    return name


class NewBlob(Protocol):
    """One that is being written; nobody can read it before `commit`."""

    def write(self, data: bytes) -> None: ...

    def commit(self) -> None:
        """It is there for good, also after the machine loses its power."""
        ...

    def abort(self) -> None:
        """Leave nothing behind. Without effect after `commit`."""
        ...


class Blobs(Protocol):
    """A store of blobs. All methods block, and raise `Unavailable` where it is away or full."""

    def create(self, name: str) -> NewBlob: ...

    def open(self, name: str) -> BinaryIO:
        """To be read from its beginning. Raises `NotFound`."""
        ...

    def delete(self, name: str) -> None:
        """Idempotent."""
        ...

    def idle(self, seconds: float) -> Iterator[str]:
        """Names of what was not written to for so long, the unfinished among them."""
        ...


class NoBlobs:
    """Where no place for files was given."""

    def create(self, name: str) -> NewBlob:
        raise Unavailable("This service keeps no files.")

    def open(self, name: str) -> BinaryIO:
        raise Unavailable("This service keeps no files.")

    def delete(self, name: str) -> None:
        return None

    def idle(self, seconds: float) -> Iterator[str]:
        return iter(())


class LocalBlobs:
    """Files of a folder that is private to its owner."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str) -> NewBlob:
        path = self._path(name)
        with _as_unavailable():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _LocalBlob(path)

    def open(self, name: str) -> BinaryIO:
        with _as_unavailable():
            try:
                return self._path(name).open("rb")
            except FileNotFoundError:
                raise NotFound("The content of this file is not there any more.") from None

    def delete(self, name: str) -> None:
        path = self._path(name)
        with _as_unavailable():
            path.unlink(missing_ok=True)
            path.with_suffix(_UNFINISHED).unlink(missing_ok=True)

    def idle(self, seconds: float) -> Iterator[str]:
        limit = time.time() - seconds
        with _as_unavailable(), suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name.removesuffix(_UNFINISHED)
                with suppress(FileNotFoundError):  # deleted meanwhile
                    if is_blob_name(name) and entry.stat().st_mtime < limit:
                        yield name

    def _path(self, name: str) -> Path:
        return self._folder / checked(name)


class _LocalBlob:
    """Written beside its place, and put there as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_suffix(_UNFINISHED)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._unfinished, flags, 0o600), "wb", buffering=0)

    def write(self, data: bytes) -> None:
        with _as_unavailable():
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]

    def commit(self) -> None:
        with _as_unavailable():
            os.fsync(self._file.fileno())
            self._file.close()
            self._unfinished.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def abort(self) -> None:
        self._file.close()
        with suppress(OSError):  # what stays is found later, by its age
            self._unfinished.unlink(missing_ok=True)


@contextmanager
def _as_unavailable() -> Iterator[None]:
    """No path in the sentence: it is shown to clients."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Unavailable(
            "The disk for files is full." if full else "The store of files is away."
        ) from error
