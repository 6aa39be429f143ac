"""Cursors of pages by time: opaque to clients, and nothing but a time and a name."""

from __future__ import annotations

import base64
import binascii
import datetime as dt

from penstock.errors import InvalidRequest
from storage.text import is_storable


def encode(at: dt.datetime, name: str) -> str:
    """Where a page ended."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {name}".encode()).decode().rstrip("=")


def decode(cursor: str, param: str) -> tuple[dt.datetime, str]:
    """The time and name of a cursor. Raises `InvalidRequest` for what is none of ours."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, _, name = base64.b64decode(padded, b"-_", validate=True).decode().partition(" ")
        moment = dt.datetime.fromisoformat(at)
    except (ValueError, binascii.Error):
        moment, name = None, ""
    if moment is None or moment.tzinfo is None or not name or not is_storable(name):
        raise InvalidRequest(f"`{param}` is not a cursor of an earlier answer.", param=param)
    return moment, name
