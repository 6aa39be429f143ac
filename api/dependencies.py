"""What routes are given: the parts of this process, and whose request it is. Builds nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.batch_reader import BatchReader
from api.body import BodyBudget
from api.callers import DEFAULT_OWNER as DEFAULT_OWNER
from api.callers import Caller, Callers
from api.callers import hash_key as hash_key
from api.config import ApiConfig
from api.current import current
from api.intake import check_idempotency_key
from api.metrics import Metrics
from api.offload import Offload
from api.pieces import Pieces
from api.probes import Probes
from api.rates import RateLimiter
from api.waiting import Waiters
from penstock.errors import NotFound
from penstock.keys import Scope
from storage.blobs import Blobs
from workers.queues import WakeUps

if TYPE_CHECKING:
    from api.departures import Departures

BATCH_ID: Final = re.compile(r"(batch|chat)_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that lives as long as the process."""

    config: ApiConfig
    offload: Offload
    wake_ups: WakeUps
    waiters: Waiters
    budget: BodyBudget
    metrics: Metrics
    probes: Probes
    blobs: Blobs
    reader: BatchReader
    callers: Callers
    rates: RateLimiter
    pieces: Pieces
    departures: Departures


def get_parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


bearer = HTTPBearer(auto_error=False, description="A key of `penstock keys`, or of the settings.")


async def get_caller(
    parts: Annotated[Parts, Depends(get_parts)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """Who asks; counted as one request of theirs."""
    return await caller_of(parts, credentials.credentials if credentials else None)


async def get_owner(caller: Annotated[Caller, Depends(get_caller)]) -> str:
    """Whose request this is."""
    return caller.owner


async def owner_of(parts: Parts, key: str | None, *scopes: Scope) -> str:
    """Whose key this is, where no header can bear it. Raises `Unauthorized`, `Forbidden`."""
    caller = await caller_of(parts, key)
    caller.require(*scopes)
    return caller.owner


async def caller_of(parts: Parts, key: str | None) -> Caller:
    """Whose key this is, counted as a request. Raises `Unauthorized`, `LimitReached`."""
    caller = await parts.callers.identify(key)
    noted = current()
    noted.owner, noted.rates = caller.owner, caller.rates
    if caller.rates.requests is not None:
        await parts.rates.charge(caller.owner, "requests", caller.rates.requests)
    return caller


def get_batch_id(request_id: str) -> str:
    """The id in the path. What is not of an id's form is unknown, and never reaches SQL."""
    if not BATCH_ID.fullmatch(request_id):
        raise NotFound("There is no job under this id.")
    return request_id


def get_idempotency_key(
    idempotency_key: Annotated[
        str | None, Header(description="Repeat a post under the same key: it is stored once.")
    ] = None,
) -> str | None:
    return check_idempotency_key(idempotency_key)


PartsDep = Annotated[Parts, Depends(get_parts)]
Owner = Annotated[str, Depends(get_owner)]
BatchId = Annotated[str, Depends(get_batch_id)]
IdempotencyKey = Annotated[str | None, Depends(get_idempotency_key)]
