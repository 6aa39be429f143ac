"""`/v1/batches`: files of requests as batches; created, watched, listed and cancelled."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection
from starlette.responses import JSONResponse

from api import accepting, openapi
from api.body import read_body
from api.dependencies import BATCH_ID, IdempotencyKey, Owner, PartsDep
from api.json_body import parse_object
from api.openai_batches import batch_object, new_batch, new_job, parse_create
from api.openai_errors import OpenaiRoute
from api.scopes import needs
from penstock.errors import InvalidRequest, NotFound
from penstock.keys import Scope
from penstock.schemas.openai_batches import BatchObject, BatchPage
from storage import lifecycle, openai_batches
from storage.openai_batches import OpenaiBatch
from storage.records import Batch

router = APIRouter(
    prefix="/v1/batches",
    tags=["batches"],
    dependencies=[needs(Scope.JOBS)],
    route_class=OpenaiRoute,
)

MAX_BODY: Final = 200_000  # bytes: 16 keys of metadata, escaped, and room
MAX_LIST: Final = 100
EXAMPLES: Final = {
    "a file of requests": {
        "value": {
            "input_file_id": "file_0193e1f0a1b27c3d8e4f5a6b7c8d9e0f",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "on_invalid_line": "quarantine",
        }
    }
}


def get_batch_id(batch_id: str) -> str:
    """The id in the path. What is not of an id's form is unknown, and never reaches SQL."""
    if not BATCH_ID.fullmatch(batch_id):
        raise _unknown()
    return batch_id


BatchId = Annotated[str, Depends(get_batch_id)]


@router.post(
    "",
    response_model=BatchObject,
    responses=openapi.errors(400, 404, 409, 413, 415, 429),
    openapi_extra=openapi.body("BatchCreate", EXAMPLES),
)
async def create(
    request: Request, parts: PartsDep, owner: Owner, key: IdempotencyKey
) -> JSONResponse:
    """Run the requests of a file. It is read after this answer; what is wrong with it turns the
    batch `failed`, or with `on_invalid_line: quarantine` goes into the error file."""
    with parts.budget.hold() as hold:
        body = await read_body(request, hold, MAX_BODY)
        digest = accepting.body_hash(body)
        fields = await parts.offload.parse(lambda: parse_create(parse_object(body)))

    def store(conn: Connection) -> Batch:
        job = new_job(fields, owner, parts.config.model, key, digest)
        return openai_batches.create(conn, job, new_batch(fields))

    stored = await accepting.store(parts, store, digest)
    parts.reader.kick()
    found = await parts.offload.read(lambda conn: openai_batches.get(conn, owner, stored.batch.id))
    headers = {"Idempotent-Replayed": "true"} if stored.replayed else {}
    return JSONResponse(_shown(found).model_dump(), headers=headers)


@router.get("", responses=openapi.errors(400))
async def list_batches(
    parts: PartsDep,
    owner: Owner,
    *,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    after: Annotated[str | None, Query(description="A batch's id: those older than it.")] = None,
) -> BatchPage:
    """Your batches, newest first."""
    if after is not None and not BATCH_ID.fullmatch(after):
        raise InvalidRequest("`after` has to be a batch's id.", param="after")
    found = await parts.offload.read(
        lambda conn: openai_batches.page(conn, owner, limit=limit + 1, after=after)
    )
    shown = [batch_object(batch) for batch in found[:limit]]
    return BatchPage(
        data=shown,
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
        has_more=len(found) > limit,
    )


@router.get("/{batch_id}", responses=openapi.errors(404))
async def retrieve(parts: PartsDep, owner: Owner, batch_id: BatchId) -> BatchObject:
    """How a batch stands."""
    return _shown(await parts.offload.read(lambda conn: openai_batches.get(conn, owner, batch_id)))


@router.post("/{batch_id}/cancel", responses=openapi.errors(404))
async def cancel(parts: PartsDep, owner: Owner, batch_id: BatchId) -> BatchObject:
    """Stop a batch; finished results stay. Without effect on a finished one."""

    def stop(conn: Connection) -> OpenaiBatch | None:
        if openai_batches.get(conn, owner, batch_id) is None:
            return None
        lifecycle.request_cancel(conn, owner, batch_id)
        return openai_batches.get(conn, owner, batch_id)

    return _shown(await parts.offload.read(stop))


def _shown(batch: OpenaiBatch | None) -> BatchObject:
    if batch is None:
        raise _unknown()
    return batch_object(batch)


def _unknown() -> NotFound:
    return NotFound("There is no batch under this id.")
