"""`/batch-generate`: jobs in, listed, cancelled and tried again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Connection
from starlette.responses import JSONResponse

from api import accepting, intake, openapi, results
from api.body import read_body
from api.callers import Caller
from api.dependencies import BatchId, IdempotencyKey, Owner, Parts, PartsDep, get_caller
from api.scopes import needs
from penstock.errors import NotFound
from penstock.ids import new_id
from penstock.keys import Scope
from penstock.schemas.batch import Accepted, BatchResult, JobList
from storage import lifecycle, overview
from storage.records import Batch, NewBatch
from storage.states import Lane

router = APIRouter(tags=["jobs"])


@router.post(
    "/batch-generate",
    status_code=202,
    response_model=Accepted,
    responses=openapi.errors(400, 404, 409, 413, 415, 422, 429),
    openapi_extra=openapi.body("BatchRequest", openapi.BATCH_EXAMPLES),
    dependencies=[needs(Scope.JOBS)],
)
async def submit(
    request: Request, parts: PartsDep, owner: Owner, key: IdempotencyKey
) -> JSONResponse:
    """Store a job. Once this is answered, every prompt ends in exactly one stored outcome.

    A prompt that cannot run (empty, too large, not text) fails alone, with its reason.
    """
    with parts.budget.hold() as hold:
        body = await read_body(request, hold, parts.config.max_body_bytes)
        digest = await parts.offload.parse(lambda: accepting.body_hash(body)) if key else None
        most = parts.config.max_prompts
        job = await parts.offload.parse(lambda: intake.parse_job(body, most))
        hold.take(job.memory)
        if job.fields.callback_url is not None:
            parts.config.receivers.parse(job.fields.callback_url, "callback_url")
        create = _creator(parts, owner, key, digest, job)
        stored = await accepting.store(parts, create, digest)
    return _accepted(stored)


def _creator(
    parts: Parts, owner: str, key: str | None, digest: str | None, job: intake.ParsedJob
) -> accepting.Create:
    fields = job.fields

    def create(conn: Connection) -> Batch:
        batch = NewBatch(
            id=new_id("batch"),
            owner=owner,
            kind="batch",
            model=accepting.resolve_model(conn, fields.model, parts.config),
            lane=Lane.BULK,
            params=intake.sampling_params(fields),
            system=fields.system,
            priority=fields.priority,
            metadata=fields.metadata,
            expires_in=fields.expires_in,
            idempotency_key=key,
            body_hash=digest,
            callback_url=fields.callback_url,
        )
        prompts = intake.to_prompts(job.messages, parts.config.max_prompt_bytes)
        limits = parts.config.limits
        return accepting.create_within_limits(conn, limits, batch, prompts, len(job.messages))

    return create


def _accepted(stored: accepting.Stored) -> JSONResponse:
    batch = stored.batch
    answer = Accepted(
        request_id=batch.id, status=results.summary_of(batch).status, total=batch.total
    )
    return JSONResponse(answer.model_dump(mode="json"), 202, accepting.headers_of(stored))


@router.get("/batch-generate", responses=openapi.errors(422), dependencies=[needs(Scope.JOBS)])
async def list_jobs(
    parts: PartsDep, owner: Owner, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> JobList:
    """Jobs, newest first; chats are not listed."""
    found = await parts.offload.read(lambda conn: overview.list_jobs(conn, owner, limit))
    return JobList(data=[results.summary_of(batch) for batch in found])


@router.post(
    "/batch-generate/{request_id}/cancel",
    response_model=BatchResult,
    responses=openapi.errors(404),
    dependencies=[needs(Scope.JOBS, Scope.CHAT)],
)
async def cancel(
    parts: PartsDep, caller: Annotated[Caller, Depends(get_caller)], batch_id: BatchId
) -> Response:
    """Stop a job or a chat; finished results stay. Without effect on a finished one."""
    if not batch_id.startswith("chat_"):
        caller.require(Scope.JOBS)
    batch = await parts.offload.read(
        lambda conn: lifecycle.request_cancel(conn, caller.owner, batch_id)
    )
    return _status_of(batch)


@router.post(
    "/batch-generate/{request_id}/retry-failed",
    response_model=BatchResult,
    responses=openapi.errors(404, 409),
    dependencies=[needs(Scope.JOBS)],
)
async def retry_failed(parts: PartsDep, owner: Owner, batch_id: BatchId) -> Response:
    """Run the failed prompts of a finished job again; results that succeeded stay."""
    batch = await parts.offload.store(lambda conn: lifecycle.retry_failed(conn, owner, batch_id))
    if batch is not None:
        parts.wake_ups.send(batch.model, batch.lane.value)
    return _status_of(batch)


def _status_of(batch: Batch | None) -> Response:
    if batch is None:
        raise NotFound("There is no job under this id.")
    return Response(results.render_head(batch), media_type="application/json")
