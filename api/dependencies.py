"""What routes are given: the parts of this process, and whose request it is. Builds nothing."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.body import BodyBudget
from api.config import ApiConfig
from api.intake import check_idempotency_key
from api.metrics import Metrics
from api.offload import Offload
from api.probes import Probes
from api.waiting import Waiters
from penstock.errors import NotFound, Unauthorized
from workers.queues import WakeUps

DEFAULT_OWNER: Final = "default"
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


def hash_key(key: str) -> bytes:
    """How keys are kept and compared."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def get_parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


bearer = HTTPBearer(auto_error=False, description="One of the configured keys.")


def get_owner(
    parts: Annotated[Parts, Depends(get_parts)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> str:
    """Whose request this is. Compares with every key, in constant time."""
    accepted = parts.config.key_hashes
    if not accepted:
        return DEFAULT_OWNER
    given = hash_key(credentials.credentials) if credentials else b""
    # A list, so that no comparison is skipped.
    if not any([hmac.compare_digest(given, known) for known in accepted]):
        raise Unauthorized
    return DEFAULT_OWNER


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
