"""`/cache/*`: what clients keep under keys of their own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_KEY = 256  # characters
DEFAULT_TTL = 3_600  # seconds

CacheKey = Annotated[str, Field(min_length=1, max_length=MAX_KEY)]


class CacheSet(BaseModel):
    """A value to keep for `ttl` seconds, in place of what is under the key."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    key: CacheKey
    value: Any = Field(description="Any JSON value.")
    ttl: int = Field(default=DEFAULT_TTL, ge=1, description="Seconds.")


class CacheEntry(BaseModel):
    """What is under a key; `value` is null where nothing was found, and after a delete."""

    key: str
    value: Any = None
    found: bool


class CacheKeyStats(BaseModel):
    """The owner's keys that live, and reads of them so far."""

    total_keys: int
    hits: int
    misses: int
    hit_rate: float = Field(description="Hits of all reads; 0 before the first.")
