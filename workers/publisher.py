"""Publishes the text of chats as it comes: the engine's thread hands it over and never waits.

One thread writes to Redis, and joins what came meanwhile. Where Redis is away or slow, text is
dropped here: the outcome in PostgreSQL has all of it. Knows no engine and no SQL.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Final

from redis import Redis

from penstock.telemetry import get_logger
from storage.records import ClaimedShard
from storage.states import Lane
from storage.text import storable
from workers.background import JOIN_TIMEOUT, Background
from workers.pieces import NO_RETRY, Piece, client_url, encode, stream_key

log = get_logger(__name__)

STREAM: Final = "stream"  #: member of a job's parameters: its text is wanted as it comes
INTERVAL: Final = 0.02  # seconds between two writes
MAX_WAITING: Final = 10_000  # pieces
MAX_ENTRIES: Final = 5_000  # of one stream, about
EXPIRY: Final = 300  # seconds after the last piece
TIMEOUT: Final = 1.0  # seconds
RETRY: Final = 2.0  # seconds after a failure

Publish = Callable[[ClaimedShard], Callable[[str], None] | None]


def publish_nothing(shard: ClaimedShard) -> None:
    """For a worker without a broker."""
    return


class Publisher(Background):
    """Text that waits is bounded; what is too much, or comes while Redis is away, is dropped."""

    def __init__(self, broker_url: str, key_prefix: str) -> None:
        super().__init__("publisher")
        self._prefix = key_prefix
        self._client = Redis.from_url(
            client_url(broker_url),
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=NO_RETRY,
        )
        self._inbox: deque[tuple[str, Piece]] = deque()
        self._wanted = threading.Event()  #: set as long as the thread is awake
        self._away_until = 0.0

    def of(self, shard: ClaimedShard) -> Callable[[str], None] | None:
        """What the engine is to call with the text of this chat; None where nobody wants it."""
        if shard.params.get(STREAM) is not True or shard.lane is not Lane.EXPRESS:
            return None
        if [request.position for request in shard.requests] != [0]:
            return None
        key, attempt, offset = stream_key(self._prefix, shard.batch_id), (shard.id, shard.epoch), 0

        def on_token(text: str) -> None:
            nonlocal offset
            self._put(key, Piece(attempt, offset, text))
            offset += len(text)

        return on_token

    def stop(self, timeout: float = JOIN_TIMEOUT) -> bool:
        """End and wait; False when it did not end in time."""
        self._stopping.set()
        self._wanted.set()
        ended = super().stop(timeout)
        self._client.close()
        return ended

    def _put(self, key: str, piece: Piece) -> None:
        """Never blocks; the engine's thread."""
        if len(self._inbox) < MAX_WAITING:
            self._inbox.append((key, piece))
            if not self._wanted.is_set():
                self._wanted.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            while self._inbox:
                self._flush()
                self._stopping.wait(INTERVAL)
            self._wanted.clear()
            if self._inbox or self._stopping.is_set():  # it came before the thread fell asleep
                self._wanted.set()

    def _flush(self) -> None:
        taken = [self._inbox.popleft() for _ in range(len(self._inbox))]
        if time.monotonic() < self._away_until:
            return
        try:
            self._write(_joined(taken))
        except Exception as error:  # whatever the client raises: the thread goes on
            self._away_until = time.monotonic() + RETRY
            log.warning("pieces.dropped", error=type(error).__name__)

    def _write(self, pieces: Iterable[tuple[str, Piece]]) -> None:
        """One round trip for all chats."""
        pipeline = self._client.pipeline(transaction=False)
        for key, piece in pieces:
            pipeline.xadd(key, encode(piece), maxlen=MAX_ENTRIES, approximate=True)
            pipeline.expire(key, EXPIRY)
        pipeline.execute()


def _joined(pieces: Iterable[tuple[str, Piece]]) -> list[tuple[str, Piece]]:
    """One piece for each stretch of an attempt; text as PostgreSQL will hold it."""
    stretches: dict[str, list[tuple[Piece, list[str]]]] = defaultdict(list)
    ends: dict[str, int] = {}
    for key, piece in pieces:
        found = stretches[key]
        if found and found[-1][0].attempt == piece.attempt and ends[key] == piece.offset:
            found[-1][1].append(piece.text)
        else:
            found.append((piece, [piece.text]))
        ends[key] = piece.offset + len(piece.text)
    return [
        (key, Piece(first.attempt, first.offset, storable("".join(texts)) or ""))
        for key, found in stretches.items()
        for first, texts in found
    ]
