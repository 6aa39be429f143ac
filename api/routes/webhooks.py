"""`/webhooks/endpoints`: where an owner's events go. OpenAI's client finds the same endpoints at
its own path, `/v1/webhook_endpoints`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Final, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from sqlalchemy import Connection

from api import intake, openapi
from api.body import read_body
from api.dependencies import Owner, Parts, PartsDep
from api.json_body import parse_object
from api.scopes import needs
from penstock.errors import InvalidRequest, NotFound
from penstock.keys import Scope
from penstock.schemas import webhooks as schema
from storage import endpoints
from storage.endpoints import CALLBACKS, OVERLAP, Endpoint

router = APIRouter(tags=["webhooks"], dependencies=[needs(Scope.ADMIN)])

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

MAX_BODY: Final = 20_000  # bytes
MAX_LIMIT: Final = 100
ENDPOINT_ID: Final = "whe_[0-9a-f]{32}"
NO_ENDPOINT: Final = "There is no webhook endpoint under this id."
ENDPOINTS: Final = ("/webhooks/endpoints", "/v1/webhook_endpoints")

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
After = Annotated[
    str | None, Query(pattern=f"^{ENDPOINT_ID}$", description="The last id of the page before.")
]


def get_endpoint_id(endpoint_id: str) -> str:
    """The id in the path. What is not of an id's form never reaches SQL."""
    if endpoint_id != CALLBACKS and not re.fullmatch(ENDPOINT_ID, endpoint_id):
        raise NotFound(NO_ENDPOINT)
    return endpoint_id


EndpointId = Annotated[str, Depends(get_endpoint_id)]


async def create(request: Request, parts: PartsDep, owner: Owner) -> schema.EndpointWithSecret:
    """Send an owner's events to a URL. The signing secret is told in this answer alone."""
    fields = await _body(request, parts, schema.NewEndpoint)
    parts.config.receivers.parse(fields.url)
    new = endpoints.NewEndpoint(
        owner, fields.url, _distinct(fields.event_types), fields.name, fields.enabled
    )
    made, secret = await parts.offload.read(lambda conn: endpoints.create(conn, new))
    return _with_secret(made, secret)


async def list_endpoints(
    parts: PartsDep, owner: Owner, after: After = None, limit: Limit = 20
) -> schema.EndpointList:
    """Newest first, without `callbacks`."""
    known = await parts.offload.read(lambda conn: endpoints.list_all(conn, owner))
    found = [endpoint for endpoint in known if after is None or endpoint.id < after]
    data = [_endpoint(endpoint) for endpoint in found[:limit]]
    return schema.EndpointList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > limit,
    )


async def retrieve(parts: PartsDep, owner: Owner, endpoint_id: EndpointId) -> schema.Endpoint:
    """One endpoint, without its secret; `callbacks` signs for the `callback_url` of jobs."""
    found = await _found(parts, lambda conn: endpoints.get(conn, owner, endpoint_id))
    return _endpoint(found)


async def change(
    request: Request, parts: PartsDep, owner: Owner, endpoint_id: EndpointId
) -> schema.Endpoint:
    """Change an endpoint, switch it off or on again. What has not been delivered yet goes to the
    new URL; while it is off, nothing new is recorded for it, and what is pending waits."""
    fields = await _body(request, parts, schema.EndpointChanges)
    changes = fields.model_dump(exclude_none=True)
    if fields.url is not None:
        if endpoint_id == CALLBACKS:
            raise InvalidRequest("`url`: Each job has its own.", param="url")
        parts.config.receivers.parse(fields.url)
    if fields.event_types is not None:
        changes["events"] = list(_distinct(changes.pop("event_types")))
    found = await _found(parts, lambda conn: endpoints.update(conn, owner, endpoint_id, changes))
    return _endpoint(found)


async def delete(parts: PartsDep, owner: Owner, endpoint_id: EndpointId) -> schema.EndpointDeleted:
    """Delete an endpoint with its deliveries."""
    if not await parts.offload.read(lambda conn: endpoints.delete(conn, owner, endpoint_id)):
        raise NotFound(NO_ENDPOINT)
    return schema.EndpointDeleted(id=endpoint_id)


async def rotate_secret(
    request: Request, parts: PartsDep, owner: Owner, endpoint_id: EndpointId
) -> schema.EndpointWithSecret:
    """A new signing secret, told in this answer alone. The old one signs, too, for a day, unless
    it is not to be kept."""
    fields = await _body(request, parts, schema.RotateSecret, optional=True)
    keep = fields.keep_old_secret_active_for_24_hours
    if keep is None:
        keep = not request.url.path.startswith("/v1/")
    made, secret = await _found(
        parts,
        lambda conn: endpoints.rotate(conn, owner, endpoint_id, overlap=OVERLAP if keep else 0),
    )
    return _with_secret(made, secret)


def _add_routes() -> None:
    for path in ENDPOINTS:
        one, old = f"{path}/{{endpoint_id}}", path.startswith("/v1/")
        name = "openai_" if old else ""
        new = openapi.errors(400, 409, 413, 415, 422)
        known = openapi.errors(404)
        changed = openapi.errors(400, 404, 413, 415, 422)
        turn = f"{one}/rotate_secret" if old else f"{one}/rotate-secret"
        for method, at, call, errors, body in (
            ("POST", path, create, new, "NewEndpoint"),
            ("GET", path, list_endpoints, openapi.errors(422), None),
            ("GET", one, retrieve, known, None),
            ("POST", one, change, changed, "EndpointChanges"),
            ("DELETE", one, delete, openapi.errors(404, 409), None),
            ("POST", turn, rotate_secret, changed, "RotateSecret"),
        ):
            router.add_api_route(
                at,
                call,
                methods=[method],
                name=f"{name}{call.__name__}",
                responses=errors,
                openapi_extra=openapi.body(body, {}) if body else None,
            )


_add_routes()


async def _body(
    request: Request, parts: Parts, model: type[Model], *, optional: bool = False
) -> Model:
    """The JSON body. `optional`: none at all stands for an empty object."""
    given = request.headers
    if optional and given.get("content-length", "0") == "0" and "transfer-encoding" not in given:
        return model()
    with parts.budget.hold() as hold:
        body = await read_body(request, hold, MAX_BODY)
        return intake.validated(model, parse_object(body))


async def _found(parts: Parts, work: Callable[[Connection], T | None]) -> T:
    found = await parts.offload.read(work)
    if found is None:
        raise NotFound(NO_ENDPOINT)
    return found


def _distinct(events: list[schema.Event]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(events))


def _endpoint(found: Endpoint) -> schema.Endpoint:
    return schema.Endpoint.model_validate(_members(found))


def _with_secret(made: Endpoint, secret: str) -> schema.EndpointWithSecret:
    return schema.EndpointWithSecret.model_validate({**_members(made), "signing_secret": secret})


def _members(found: Endpoint) -> dict[str, object]:
    return {
        "id": found.id,
        "name": found.name,
        "url": found.url,
        "event_types": list(found.events),
        "enabled": found.enabled,
        "signing_secret_hint": found.hint,
        "created_at": int(found.created_at.timestamp()),
        "updated_at": int(found.updated_at.timestamp()),
    }
