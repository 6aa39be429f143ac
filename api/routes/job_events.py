"""`GET /batch-result/{id}/events`: a job's results as they come."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from api import accepting, job_events, openapi, sse
from api.access_token import StreamNeeds, check_again
from api.dependencies import BatchId, PartsDep
from api.sse import LastEventId
from penstock.keys import Scope

router = APIRouter(tags=["jobs"])

SCOPES = (Scope.JOBS, Scope.CHAT)

EVENTS = (
    '`event: progress` with `{"total", "completed", "failed"}`, `event: result` with `{"index", '
    '"response", "error"?}` for each prompt as it ends, `event: end` with the job.'
)


@router.get(
    "/batch-result/{request_id}/events",
    response_class=Response,
    responses={**sse.documented(EVENTS), **openapi.errors(404, 422)},
)
async def follow_job(
    request: Request,
    parts: PartsDep,
    owner: Annotated[str, Depends(StreamNeeds(*SCOPES))],
    batch_id: BatchId,
    last_event_id: LastEventId = None,
) -> Response:
    """Each finished prompt once, in the order in which they end; resumable by `Last-Event-ID`.

    A prompt that is tried again ends a second time.
    """
    if last_event_id == sse.LAST:
        return sse.over()
    place = job_events.parse_place(last_event_id)
    batch = await accepting.load(parts, owner, batch_id)
    parts.waiters.check_room()
    check = partial(check_again, request, parts, *SCOPES)
    return sse.EventStream(job_events.events(parts, batch, place, check))
