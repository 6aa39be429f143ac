"""The data directory of one stack: its layout, its lock, and what it tells about the stack in it.

Everything inside is private to its owner. Knows no process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import StackError

MIN_FREE_BYTES = 200_000_000
#: Of a unix socket's path, in bytes; 107 on Linux, less on others.
SOCKET_PATH_LIMIT = 103
_LONGEST_SOCKET = "pg/.s.PGSQL.5432"


class DataDir:
    """An existing, writable directory that this process holds alone until `release`."""

    def __init__(self, path: Path, *, min_free: int = MIN_FREE_BYTES) -> None:
        """Raises StackError: not writable, in use, or nearly full."""
        self.root = Path(path).expanduser().absolute()
        self.postgres = self.root / "postgres"
        self.redis = self.root / "redis"
        self.logs = self.root / "logs"
        self.stack_file = self.root / "stack.json"
        with os_errors_as_sentences(self.root):
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = self._acquire()
            try:
                self._check_space(min_free)
                for folder in (self.redis, self.logs):
                    folder.mkdir(exist_ok=True, mode=0o700)
                self.sockets = _socket_folder(self.root)
                self.stack_file.unlink(missing_ok=True)
            except BaseException:
                os.close(self._lock)
                raise

    def publish(self, facts: Mapping[str, object]) -> None:
        """Write `stack.json` for those who look for the running stack. Atomic, mode 0600."""
        write_private(self.stack_file, json.dumps(facts, indent=2) + "\n")

    def release(self) -> None:
        """Give the directory back. Safe to call twice."""
        if self._lock >= 0:
            self.stack_file.unlink(missing_ok=True)
            if not self.sockets.is_relative_to(self.root):
                shutil.rmtree(self.sockets, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def _acquire(self) -> int:
        # Not inherited by children, so the lock ends with this process, however it ends.
        lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
            os.close(lock)
            raise StackError(
                f"{self.root} is in use by another `penstock up`"
                f"{f' (process {owner})' if owner else ''}; "
                "stop it first, or choose another --data-dir."
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock

    def _check_space(self, min_free: int) -> None:
        free = shutil.disk_usage(self.root).free
        if free < min_free:
            raise StackError(
                f"The disk of {self.root} is nearly full: {free // 1_000_000} MB free, "
                f"{min_free // 1_000_000} MB needed."
            )


def _socket_folder(root: Path) -> Path:
    name = f"penstock-{hashlib.sha256(os.fsencode(root)).hexdigest()[:12]}"
    # The user's temporary directory may have a long path as well.
    folders = (root / "run", Path(tempfile.gettempdir()) / name, Path("/tmp") / name)  # noqa: S108
    short = (f for f in folders if len(os.fsencode(f / _LONGEST_SOCKET)) <= SOCKET_PATH_LIMIT)
    folder = next(short, folders[-1])
    folder.mkdir(exist_ok=True, mode=0o700)
    facts = folder.lstat()  # the temporary directory is everybody's: take no other's folder
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise StackError(f"{folder}, the folder for the sockets, belongs to somebody else.")
    folder.chmod(0o700)
    return folder


@contextmanager
def os_errors_as_sentences(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StackError that names the path."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        if error.errno == errno.ENOSPC:
            raise StackError(f"The disk is full: {place} cannot be written.") from error
        reason = (error.strerror or str(error)).lower()
        raise StackError(f"{place} cannot be used: {reason}.") from error


def write_private(path: Path, text: str) -> None:
    """Replace a file at once; only its owner may read it."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
