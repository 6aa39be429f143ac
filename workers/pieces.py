"""How text on its way to a client looks in Redis: one stream for each chat, hints that may be lost.

Whoever reaches Redis can write anything there, so what is read is checked by its form; the outcome
in PostgreSQL decides in the end. Knows no engine and no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from redis.backoff import NoBackoff
from redis.retry import Retry

SOCKET: Final = "redis+socket"
#: Characters of a number that is read; longer ones are not ours.
LONGEST_NUMBER: Final = 19
#: A failed command is not tried again by the client: whoever sent it knows better.
NO_RETRY: Final = Retry(NoBackoff(), 0)

#: Shard and epoch of the lease that wrote a piece: a later attempt is greater.
Attempt = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of one attempt; `offset`: characters of its answer before this."""

    attempt: Attempt
    offset: int
    text: str


def client_url(broker_url: str) -> str:
    """Celery's name of a broker as redis-py's: `redis+socket:///path` is `unix:///path` there."""
    parts = urlsplit(broker_url)
    if parts.scheme != SOCKET:
        return broker_url
    database = dict(parse_qsl(parts.query)).get("virtual_host", "0")
    return f"unix://{parts.netloc}{parts.path}?db={database}"


def stream_key(prefix: str, batch_id: str) -> str:
    return f"{prefix}text:{batch_id}"


def encode(piece: Piece) -> dict[Any, Any]:  # as the client's own types want it
    shard, epoch = piece.attempt
    return {"a": f"{shard}.{epoch}", "o": str(piece.offset), "t": piece.text}


def decode(fields: Mapping[bytes, bytes]) -> Piece | None:
    """None for what no worker of ours has written."""
    try:
        shard, epoch = fields[b"a"].split(b".")
        return Piece((_number(shard), _number(epoch)), _number(fields[b"o"]), fields[b"t"].decode())
    except (KeyError, ValueError):
        return None


def _number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > LONGEST_NUMBER:
        raise ValueError(digits)
    return int(digits)
