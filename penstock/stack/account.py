"""The operating-system account that PostgreSQL runs as: it refuses to run as root.

Knows permissions of folders; nothing of PostgreSQL itself.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import StackError

NAME = "pgserver"


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account of this machine."""

    name: str
    uid: int
    gid: int

    def own(self, folder: Path, mode: int) -> None:
        """Give it a folder."""
        os.chown(folder, self.uid, self.gid)
        folder.chmod(mode)

    def may_pass(self, folder: Path) -> None:
        """Let it go through a folder of ours without listing it; nobody else may."""
        os.chown(folder, -1, self.gid)
        folder.chmod(0o710)

    def can_search(self, folder: Path) -> bool:
        """Whether it may go through this folder, by the folder's mode."""
        facts = folder.stat()
        if facts.st_uid == self.uid:
            return bool(facts.st_mode & stat.S_IXUSR)
        if facts.st_gid == self.gid:
            return bool(facts.st_mode & stat.S_IXGRP)
        return bool(facts.st_mode & stat.S_IXOTH)

    def open_way_to(self, path: Path) -> list[Path]:
        """Let it go through every folder above `path`. Adds the right to search, never to list.

        Returns the folders that were changed.
        """
        closed = [folder for folder in path.parents if not self.can_search(folder)]
        for folder in closed:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
        return closed


def other_account() -> Account | None:
    """Whom PostgreSQL must run as: nobody else (None), or `pgserver` where we are root."""
    if os.geteuid() != 0:
        return None
    entry = _find()
    if entry is None:
        with _alone():
            entry = _find() or _create()
    return Account(NAME, entry.pw_uid, entry.pw_gid)


def _find() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        return None


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time: of two `useradd` for one name the later gives it another id."""
    folder = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _create() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        return pwd.getpwnam(NAME)
    except (OSError, subprocess.SubprocessError, KeyError) as error:
        raise StackError(
            f"PostgreSQL does not run as root, and the account `{NAME}` for it cannot be created "
            f"({error}); create it, or run as an ordinary user."
        ) from error
