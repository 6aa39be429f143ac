"""`/cache/*`: what clients keep under keys of their own. Apart from the answers that the service
keeps for equal prompts."""

from __future__ import annotations

import json
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api import openapi
from api.body import read_body
from api.config import ApiConfig
from api.dependencies import Owner, PartsDep
from api.intake import checked
from api.json_body import JSON_FACTOR, parse_object
from api.scopes import needs
from penstock.errors import InvalidRequest, TooLarge
from penstock.keys import Scope
from penstock.schemas.cache import MAX_KEY, CacheEntry, CacheKeyStats, CacheSet
from storage import client_cache
from storage.client_cache import Entry
from storage.text import is_storable

router = APIRouter(tags=["cache"], prefix="/cache", dependencies=[needs(Scope.CHAT, Scope.JOBS)])

#: Besides the value: the other fields.
BODY_SLACK: Final = 10_000

Key = Annotated[str, Path(min_length=1, max_length=MAX_KEY)]


@router.post(
    "/set",
    response_model=CacheEntry,
    responses=openapi.errors(400, 413, 415, 422, 429),
    openapi_extra=openapi.body("CacheSet", openapi.CACHE_EXAMPLES),
)
async def set_key(request: Request, parts: PartsDep, owner: Owner) -> Response:
    """Keep a value under a key for a time, in place of what is there."""
    config = parts.config
    most = min(config.max_body_bytes, JSON_FACTOR * config.max_value_bytes + BODY_SLACK)
    with parts.budget.hold() as hold:
        body = await read_body(request, hold, most)
        entry = await parts.offload.parse(lambda: _parse(config, body))
        await parts.offload.read(
            lambda conn: client_cache.put(conn, owner, entry, config.cache_bounds)
        )
    return _shown(entry.key, entry.value, found=True)


@router.get("/get/{key:path}", response_model=CacheEntry, responses=openapi.errors(422))
async def get_key(parts: PartsDep, owner: Owner, key: Key) -> Response:
    """The value under a key; `found` is false where there is none, or its time is over."""
    _check_key(key)
    value = await parts.offload.read(lambda conn: client_cache.get(conn, owner, key))
    return _shown(key, value, found=value is not None)


@router.delete("/delete/{key:path}", response_model=CacheEntry, responses=openapi.errors(422))
async def delete_key(parts: PartsDep, owner: Owner, key: Key) -> Response:
    """Remove a key; `found` says whether it was there."""
    _check_key(key)
    found = await parts.offload.read(lambda conn: client_cache.delete(conn, owner, key))
    return _shown(key, None, found=found)


@router.get("/stats", responses=openapi.errors())
async def key_stats(parts: PartsDep, owner: Owner) -> CacheKeyStats:
    """How many keys live, and how often one that was asked for was there."""
    now = await parts.offload.read(lambda conn: client_cache.stats(conn, owner))
    reads = now.hits + now.misses
    return CacheKeyStats(
        total_keys=now.keys,
        hits=now.hits,
        misses=now.misses,
        hit_rate=round(now.hits / reads, 4) if reads else 0.0,
    )


def _parse(config: ApiConfig, body: bytearray) -> Entry:
    """What is to be kept, its value as JSON text. Raises `InvalidRequest` and its kin."""
    members = parse_object(body)
    asked = checked(CacheSet, members)
    _check_key(asked.key)
    longest = config.max_cache_ttl
    if "ttl" in members and asked.ttl > longest:
        raise InvalidRequest(f"`ttl`: At most {longest} seconds.", param="ttl")
    value = _dump(asked.value)
    if len(value) > config.max_value_bytes:
        raise TooLarge(
            f"`value` is larger than {config.max_value_bytes} bytes of JSON.", param="value"
        )
    return Entry(asked.key, value, min(asked.ttl, longest))


def _dump(value: object) -> str:
    """In ASCII, so that whatever text it holds can be stored and sent."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise InvalidRequest("`value` has a number that is too large.", param="value") from None
    except RecursionError:
        raise InvalidRequest("`value` is nested too deeply.", param="value") from None


def _check_key(key: str) -> None:
    if not is_storable(key):
        raise InvalidRequest("`key` holds NUL or half a surrogate pair.", param="key")


def _shown(key: str, value: str | None, *, found: bool) -> Response:
    """The stored text goes out as it is."""
    head = json.dumps({"key": key, "found": found})[:-1]
    return Response(f'{head}, "value": {value or "null"}}}', media_type="application/json")
