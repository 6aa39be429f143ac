"""What the HTTP side is told at its start: plain values. Reads no settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from api.current import Rates
from api.json_body import JSON_FACTOR
from storage.client_cache import OwnerBounds
from storage.files import FileLimits
from storage.quota import Limits
from storage.states import Lane
from workers.addresses import Policy

#: Of a chat besides its message, and of a file's line besides its prompt: the other fields.
BODY_SLACK: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Limits and names. Times are seconds. Without `key_hashes`, and while there is no key in the
    database, nobody is asked for one."""

    model: str  #: public name of the configured model
    #: Names of others that a worker may be told to load; their jobs are taken in as well.
    choices: frozenset[str] = frozenset()
    key_hashes: tuple[bytes, ...] = ()  #: SHA-256 of each key of the settings
    key_secret: str | None = field(default=None, repr=False)  #: for the keys of the database
    keys_required: bool = False  #: ask for a key, whether there is one or not
    key_ttl: float = 5  #: for so long a key of the database is taken for what it was
    rates: Rates = field(default_factory=Rates)  #: where a key says nothing of its own
    redis_url: str | None = field(default=None, repr=False)  #: where rates are counted
    redis_prefix: str = "penstock:"
    #: Answer only to names of this machine: a web page that gave its own name this machine's
    #: address (DNS rebinding) could else use a server that asks for no key.
    own_names_only: bool = False
    max_body_bytes: int = 200_000_000
    max_prompts: int = 50_000
    max_prompt_bytes: int = 512_000
    max_bytes_in_flight: int = 400_000_000
    max_waiting: int = 1_000
    chat_timeout: float = 120
    leave_grace: float = 15  #: to come back to a stream in, before its answer is cancelled
    socket_idle: float = 600  #: of a WebSocket on which nothing is asked
    max_history_turns: int = 10
    #: How much may wait; a lane that is not named has no bound.
    limits: Mapping[Lane, Limits] = field(default_factory=dict)
    max_file_bytes: int = 200_000_000
    file_lifetime: float = 30 * 86_400  #: of an upload that does not say
    file_limits: FileLimits = field(default_factory=FileLimits)
    #: Where webhooks may be sent, beside public addresses.
    receivers: Policy = field(default_factory=Policy)
    #: What clients may keep under keys of their own.
    cache_bounds: OwnerBounds = field(default_factory=OwnerBounds)
    max_value_bytes: int = 65_536
    max_cache_ttl: int = 30 * 86_400
    database_connections: int = 10  #: the pool that the threads here have to fit in

    @property
    def models(self) -> frozenset[str]:
        """What this service is configured to serve, loaded at the moment or not."""
        return self.choices | {self.model}

    @property
    def max_chat_bytes(self) -> int:
        """Of a body with the longest message."""
        return min(self.max_body_bytes, JSON_FACTOR * self.max_prompt_bytes + BODY_SLACK)
