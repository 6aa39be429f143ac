"""Whose key a request bears. Keys of the settings are compared here; those of the database are read
once in a few seconds, so that a revoked one ends within `key_ttl` and a request asks no database.

Keys that nobody made are refused by their seal. While the database is away, a key that was not
read just now gets `Unavailable`: it may have been revoked. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Final

from api.config import ApiConfig
from api.current import Rates
from api.offload import Offload
from penstock.errors import Forbidden, Unauthorized, Unavailable
from penstock.keys import ALL_SCOPES, KeySigner, Scope
from penstock.telemetry import get_logger
from storage import keys
from storage.records import ApiKey

log = get_logger(__name__)

Work = Callable[[], Coroutine[object, object, None]]

DEFAULT_OWNER: Final = "default"
MAX_REMEMBERED: Final = 10_000
READ_LIMIT: Final = 3.0  # seconds for the database to say what a key is
NOTE_EVERY: Final = 60.0  # seconds between two notes that a key is in use
LEAVE: Final = 2.0  # seconds for what is being written when the process ends


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may."""

    owner: str
    scopes: frozenset[Scope]
    rates: Rates

    def require(self, *scopes: Scope, reading: bool = False) -> None:
        """Raises `Forbidden` where the key has none of the scopes. One that may read passes where
        nothing changes, unless the route is for admins; no scopes: any key passes."""
        if not scopes or Scope.ADMIN in self.scopes or self.scopes & set(scopes):
            return
        if reading and Scope.READ in self.scopes and Scope.ADMIN not in scopes:
            return
        raise Forbidden(f"This API key lacks the scope: {' or '.join(scopes)}.")


@dataclass(slots=True)
class _Known:
    """A key as it was read. `caller` None: there is none of this id."""

    caller: Caller | None
    digest: bytes
    read_at: float
    ends_at: float
    noted_at: float


def hash_key(key: str) -> bytes:
    """How keys of the settings are kept and compared."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


class Callers:
    """All keys that are accepted. For one event loop."""

    def __init__(self, config: ApiConfig, offload: Offload) -> None:
        self._config = config
        self._offload = offload
        self._signer = KeySigner(config.key_secret) if config.key_secret else None
        self._own = hash_key(self._signer.own()) if self._signer else b""
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._used: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}  #: what is asked or written just now
        self._asks = bool(config.key_hashes) or config.keys_required
        self._asked_at = float("-inf")

    async def identify(self, key: str | None) -> Caller:
        """Whose key this is. Raises `Unauthorized`, and `Unavailable` where that cannot be told."""
        if not await self.are_asked():
            return self._default()
        if key is None:
            raise Unauthorized
        given = hash_key(key)
        # A list, so that no comparison is skipped.
        if any([hmac.compare_digest(given, known) for known in self._config.key_hashes]):
            return self._default()
        if hmac.compare_digest(given, self._own):
            return Caller(DEFAULT_OWNER, frozenset(), Rates())  # for what any key may see
        key_id = self._signer.id_of(key) if self._signer else None
        if self._signer is None or key_id is None:
            raise Unauthorized
        known = await self._look_up(key_id)
        if known.caller is None or not hmac.compare_digest(known.digest, self._signer.digest(key)):
            raise Unauthorized
        if known.ends_at <= time.monotonic():
            raise Unauthorized("This API key has expired or was revoked.")
        self._note(key_id, known)
        return known.caller

    async def are_asked(self) -> bool:
        """Whether a key is needed: there is one, or there was. Once so, it stays so."""
        if not self._asks and time.monotonic() - self._asked_at >= self._config.key_ttl:
            await asyncio.shield(self._start("*", self._ask))
        return self._asks

    async def close(self, limit: float = LEAVE) -> None:
        """Let what is being written be written, unless the database does not answer."""
        if tasks := list(self._tasks.values()):
            _, late = await asyncio.wait(tasks, timeout=limit)
            for task in late:
                task.cancel()

    def _default(self) -> Caller:
        return Caller(DEFAULT_OWNER, ALL_SCOPES, self._config.rates)

    def _caller(self, key: ApiKey) -> Caller:
        default = self._config.rates
        return Caller(
            key.owner,
            frozenset(Scope(name) for name in key.scopes if name in ALL_SCOPES),
            Rates(
                key.requests_per_minute or default.requests,
                key.tokens_per_minute or default.tokens,
            ),
        )

    async def _look_up(self, key_id: str) -> _Known:
        known = self._known.get(key_id)
        if known is None or time.monotonic() - known.read_at >= self._config.key_ttl:
            await asyncio.shield(self._start(key_id, lambda: self._read(key_id)))
            known = self._known[key_id]
        return known

    def _note(self, key_id: str, known: _Known) -> None:
        """Write that it is in use: now and then, all at once, and with nobody waiting for it."""
        now = time.monotonic()
        if now - known.noted_at >= NOTE_EVERY:
            known.noted_at = now
            self._used.add(key_id)
            self._start("used", self._write_used)

    def _start(self, name: str, work: Work) -> asyncio.Task[None]:
        """One task for all who want the same at the same time."""
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._end(name, done))
        return task

    def _end(self, name: str, done: asyncio.Task[None]) -> None:
        del self._tasks[name]
        if not done.cancelled():
            done.exception()  # whoever waited has it, and nobody may have

    async def _ask(self) -> None:
        self._asks = await self._offload.read(keys.any_made, limit=READ_LIMIT)
        self._asked_at = time.monotonic()

    async def _read(self, key_id: str) -> None:
        began = time.monotonic()
        found = await self._offload.read(lambda conn: keys.find(conn, key_id), limit=READ_LIMIT)
        earlier = self._known.pop(key_id, None)
        left = found.seconds_left if found else None
        self._known[key_id] = _Known(
            caller=self._caller(found) if found else None,
            digest=found.digest if found else b"",
            read_at=began,
            ends_at=float("inf") if left is None else began + left,
            noted_at=earlier.noted_at if earlier else -NOTE_EVERY,
        )
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    async def _write_used(self) -> None:
        try:
            while self._used:
                ids = sorted(self._used)
                self._used.clear()
                await self._offload.read(partial(keys.note_used, key_ids=ids))
        except Unavailable:
            log.info("key_use.unnoted")
