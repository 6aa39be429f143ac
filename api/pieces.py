"""Reads the text of chats from Redis for all clients of this process: one XREAD over all streams.

Each client has a small buffer. What does not fit is read again when the client is ready for it, so
a slow one holds nobody up. Nothing is promised: Redis may be away. Knows no HTTP and no SQL.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from redis import RedisError
from redis.asyncio import BlockingConnectionPool, Redis
from uuid_utils import uuid7

from penstock.telemetry import get_logger
from workers.pieces import NO_RETRY, Piece, client_url, decode, stream_key

log = get_logger(__name__)

Entry = tuple[bytes, Piece | None]

BLOCK: Final = 5_000  # ms of one read; a new stream ends it
TIMEOUT: Final = 10.0  # seconds for an answer, more than a read may block
CONNECT: Final = 2.0  # seconds
PAGE: Final = 200  # entries of one stream at once
BUFFER: Final = 65_536  # characters that wait for one client
MIN_BACKOFF, MAX_BACKOFF = 0.2, 5.0  # seconds
START: Final = b"0-0"
BELL_EXPIRY: Final = 600  # seconds
CONNECTIONS: Final = 32


class Feed:
    """One client's view of one stream. For one coroutine."""

    def __init__(self, pieces: Pieces, key: str, nudge: Callable[[], None], *, late: bool) -> None:
        self._pieces = pieces
        self._key = key
        self._nudge = nudge
        self._waiting: deque[Entry] = deque()
        self._size = 0
        self._last = START
        self._behind = late  #: what comes next has to be read again

    @property
    def ready(self) -> bool:
        return self._behind or bool(self._waiting)

    def put(self, entry: Entry) -> None:
        """Keep it, or nothing at all where the client takes too little."""
        if not self._behind:
            self._size += len(entry[1].text) if entry[1] else 0
            self._waiting.append(entry)
            if self._size > BUFFER or len(self._waiting) > PAGE:
                self._waiting.clear()
                self._size = 0
                self._behind = True
        self._nudge()

    async def take(self) -> list[Piece]:
        """What has come, oldest first; some of it perhaps a second time. Nothing: wait."""
        if self._behind:
            # False first: what comes while Redis is asked is kept, or sets it again.
            self._behind = False
            found = await self._pieces.read(self._key, self._last)
            self._behind = self._behind or len(found) == PAGE
        else:
            found = list(self._waiting)
            self._waiting.clear()
            self._size = 0
        if found:
            self._last = found[-1][0]
        return [piece for _, piece in found if piece is not None]


class Pieces:
    """All streams that somebody follows here. For one event loop."""

    def __init__(self, broker_url: str, key_prefix: str) -> None:
        self._prefix = key_prefix
        self.client = Redis.from_pool(
            BlockingConnectionPool.from_url(
                client_url(broker_url),
                socket_timeout=TIMEOUT,
                socket_connect_timeout=CONNECT,
                max_connections=CONNECTIONS,
                timeout=CONNECT,
                retry=NO_RETRY,
            )
        )
        self._feeds: dict[str, set[Feed]] = {}
        self._lasts: dict[str, bytes] = {}
        self._bell = f"{key_prefix}bell:{uuid7().hex}"
        self._heard = START
        self._wanted = asyncio.Event()
        self._closing = asyncio.Event()
        self._ringing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._reading = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End the reader by asking it: this release of the client loses some cancellations."""
        awake = self._wanted.is_set()
        self._closing.set()
        self._wanted.set()
        if self._reading is not None:
            if awake:
                await self._ring()
            await asyncio.wait({self._reading}, timeout=CONNECT)
        await self.client.aclose()

    @contextmanager
    def feed(self, batch_id: str, nudge: Callable[[], None]) -> Iterator[Feed]:
        """The stream of one chat from its beginning; `nudge` is called when there is more."""
        key = stream_key(self._prefix, batch_id)
        others = self._feeds.setdefault(key, set())
        feed = Feed(self, key, nudge, late=bool(others))
        others.add(feed)
        if len(others) == 1:
            self._lasts[key] = START
            self._wake()
        try:
            yield feed
        finally:
            others.discard(feed)
            if not others:
                del self._feeds[key], self._lasts[key]

    async def read(self, key: str, after: bytes) -> list[Entry]:
        """Up to `PAGE` entries of a stream; none where Redis is away."""
        try:
            async with asyncio.timeout(CONNECT):
                found: Any = await self.client.xrange(key, min=b"(" + after, count=PAGE)
        except (RedisError, OSError):
            return []
        return [(id, decode(fields)) for id, fields in found]

    def _wake(self) -> None:
        """Let the reader look at the new set: it may be in the middle of a read."""
        if self._wanted.is_set():
            if self._ringing is None or self._ringing.done():
                self._ringing = asyncio.create_task(self._ring())
        else:
            self._wanted.set()

    async def _ring(self) -> None:
        with suppress(RedisError, OSError):
            async with (
                asyncio.timeout(CONNECT),
                self.client.pipeline(transaction=False) as pipeline,
            ):
                pipeline.xadd(self._bell, {"a": ""}, maxlen=1)
                pipeline.expire(self._bell, BELL_EXPIRY)
                await pipeline.execute()

    async def _run(self) -> None:
        backoff = MIN_BACKOFF
        while not self._closing.is_set():
            if not self._feeds:
                self._wanted.clear()
                await self._wanted.wait()
                continue
            try:
                await self._read_all()
                backoff = MIN_BACKOFF
            except Exception as error:  # this task must outlive whatever the client raises
                if self._closing.is_set():
                    return
                log.warning("pieces.unread", error=type(error).__name__)
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff):
                        await self._closing.wait()
                backoff = min(2 * backoff, MAX_BACKOFF)

    async def _read_all(self) -> None:
        """One read of what all clients follow at this moment."""
        wanted: dict[Any, Any] = {self._bell: self._heard, **self._lasts}
        found: Any = await self.client.xread(wanted, count=PAGE, block=BLOCK)
        for key, entries in found or ():
            name = key.decode()
            if name == self._bell:
                self._heard = entries[-1][0]
                continue
            if self._lasts.get(name) != wanted[name]:
                continue  # nobody follows it any more, or somebody new from its beginning
            self._lasts[name] = entries[-1][0]
            for id, fields in entries:
                entry = (id, decode(fields))
                for feed in self._feeds[name]:
                    feed.put(entry)
