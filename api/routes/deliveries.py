"""`/webhooks/deliveries`: the log of what was sent to receivers, and sending it again."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query

from api import openapi
from api.dependencies import BATCH_ID, Owner, PartsDep
from api.routes.webhooks import ENDPOINT_ID, Limit
from api.scopes import needs
from penstock.errors import NotFound
from penstock.keys import Scope
from penstock.schemas import webhooks as schema
from storage import delivery_log
from storage.delivery_log import Delivery
from storage.endpoints import CALLBACKS

router = APIRouter(tags=["webhooks"], dependencies=[needs(Scope.ADMIN)])

DELIVERY_ID: Final = "whd_[0-9a-f]{32}"
UNKNOWN: Final = "There is no webhook delivery under this id."


def get_delivery_id(delivery_id: str) -> str:
    """The id in the path. What is not of an id's form never reaches SQL."""
    if not re.fullmatch(DELIVERY_ID, delivery_id):
        raise NotFound(UNKNOWN)
    return delivery_id


DeliveryId = Annotated[str, Depends(get_delivery_id)]


@router.get("/webhooks/deliveries", responses=openapi.errors(422))
async def list_deliveries(
    parts: PartsDep,
    owner: Owner,
    endpoint_id: Annotated[str | None, Query(pattern=f"^({CALLBACKS}|{ENDPOINT_ID})$")] = None,
    request_id: Annotated[
        str | None, Query(pattern=f"^({BATCH_ID.pattern})$", description="Of a job.")
    ] = None,
    after: Annotated[
        str | None, Query(pattern=f"^{DELIVERY_ID}$", description="The last id of the page before.")
    ] = None,
    limit: Limit = 20,
) -> schema.DeliveryList:
    """Deliveries, newest first: of all endpoints and jobs, or of one."""
    found = await parts.offload.read(
        lambda conn: delivery_log.list_all(
            conn,
            owner,
            endpoint_id=endpoint_id,
            batch_id=request_id,
            after=after,
            limit=limit + 1,
        )
    )
    data = [_delivery(delivery) for delivery in found[:limit]]
    return schema.DeliveryList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > limit,
    )


@router.get("/webhooks/deliveries/{delivery_id}", responses=openapi.errors(404))
async def get_delivery(parts: PartsDep, owner: Owner, delivery_id: DeliveryId) -> schema.Delivery:
    """How one stands."""
    found = await parts.offload.read(lambda conn: delivery_log.get(conn, owner, delivery_id))
    if found is None:
        raise NotFound(UNKNOWN)
    return _delivery(found)


@router.post(
    "/webhooks/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses=openapi.errors(404, 409),
)
async def redeliver(parts: PartsDep, owner: Owner, delivery_id: DeliveryId) -> schema.Delivery:
    """Send the same event again, as a new delivery; one that is pending is sent now."""
    found = await parts.offload.read(lambda conn: delivery_log.redeliver(conn, owner, delivery_id))
    if found is None:
        raise NotFound(UNKNOWN)
    return _delivery(found)


def _delivery(found: Delivery) -> schema.Delivery:
    return schema.Delivery.model_validate(
        {
            "id": found.id,
            "event_id": found.event_id,
            "event_type": found.event,
            "request_id": found.batch_id,
            "endpoint_id": found.endpoint_id,
            "url": found.url,
            "status": found.state.value,
            "attempts": found.attempts,
            "status_code": found.status_code,
            "last_error": found.last_error,
            "next_attempt_at": _seconds(found.next_at),
            "created_at": _seconds(found.created_at),
            "ended_at": _seconds(found.ended_at),
        }
    )


def _seconds(moment: dt.datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
