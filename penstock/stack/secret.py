"""The secret that a data directory's API keys are made and checked with. Knows no key."""

from __future__ import annotations

import secrets
from pathlib import Path

from penstock.errors import StackError
from penstock.keys import MIN_SECRET
from penstock.stack.directory import write_private

NAME = "key.secret"


def read_secret(root: Path) -> str | None:
    """The one that is there; None where none was made. Raises `StackError` for a damaged file."""
    file = root.expanduser() / NAME
    try:
        secret = file.read_text().strip()
    except FileNotFoundError:
        return None
    if len(secret) < MIN_SECRET:
        raise StackError(
            f"{file} is damaged: put its content back, or remove it and make all keys anew."
        )
    return secret


def make_secret(root: Path) -> str:
    """The one that is there, else a new one, which only its owner may read."""
    secret = read_secret(root)
    if secret is None:
        secret = secrets.token_hex(32)
        write_private(root / NAME, secret + "\n")
    return secret
