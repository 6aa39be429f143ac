"""One request as plain data, and what an address and a key have to look like. Sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

import httpx2

from penstock.client.body import BodySource
from penstock.errors import InvalidRequest

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Repeat(Enum):
    """When a request may be sent once more."""

    SAFELY = auto()  #: any number of times: it has the same effect as once
    IF_UNSENT = auto()  #: only when the service cannot have begun with it


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `timeout` in seconds, for the answer to begin and between two pieces of it."""

    method: str
    path: str
    repeat: Repeat
    timeout: float
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    json: object = None
    body: BodySource | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Another request under the same Idempotency-Key may be on its way: 409 then means "later".
    keyed: bool = False


def checked_url(url: str) -> str:
    """The address without a slash at its end. Raises InvalidRequest for what is none."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise InvalidRequest(
            f"{url!r} is no address of the form http://host:port.", param="base_url"
        )
    return url.rstrip("/")


def key_headers(key: str | None) -> dict[str, str]:
    """The header that carries the key. Raises InvalidRequest for a key that no header can."""
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidRequest("The API key has characters that no key has.", param="api_key")
    return {"Authorization": f"Bearer {key}"}


def is_proxied(url: str) -> bool:
    """Whether a proxy of the environment counts: it is for the world outside, never for here."""
    return httpx2.URL(url).host not in LOOPBACK
