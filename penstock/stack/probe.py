"""Short, bounded HTTP questions to the children. Knows no route."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping

_LIMIT = 3.0  # seconds


def get(host: str, port: int, path: str, headers: Mapping[str, str] | None = None) -> bytes | None:
    """The body of a 200, or None for anything else. Never raises."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=_LIMIT)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == 200 else None


def get_json(host: str, port: int, path: str, headers: Mapping[str, str]) -> dict[str, object]:
    """The object that a 200 carries, or an empty one. Never raises."""
    try:
        content = json.loads(get(host, port, path, headers) or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared only)
