"""What the HTTP side is told at its start: plain values. Reads no settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from storage.quota import Limits
from storage.states import Lane


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Limits and names. Times are seconds. No `key_hashes` means that nobody is asked for a key."""

    model: str  #: public name of the configured model
    key_hashes: tuple[bytes, ...] = ()  #: SHA-256 of each accepted key
    #: Answer only to names of this machine: a web page that gave its own name this machine's
    #: address (DNS rebinding) could else use a server that asks for no key.
    own_names_only: bool = False
    max_body_bytes: int = 200_000_000
    max_prompts: int = 50_000
    max_prompt_bytes: int = 512_000
    max_bytes_in_flight: int = 400_000_000
    max_waiting: int = 1_000
    chat_timeout: float = 120
    max_history_turns: int = 10
    #: How much may wait; a lane that is not named has no bound.
    limits: Mapping[Lane, Limits] = field(default_factory=dict)
    database_connections: int = 10  #: the pool that the threads here have to fit in
