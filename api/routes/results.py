"""`/batch-result/{id}`: how a job stands, and what it brought."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from api import accepting, openapi, results
from api.dependencies import BatchId, Owner, Parts, PartsDep
from api.scopes import needs
from penstock.keys import Scope
from penstock.schemas.batch import BatchResult
from storage.records import Batch

router = APIRouter(tags=["jobs"], dependencies=[needs(Scope.JOBS, Scope.CHAT)])

MAX_WAIT = 60  # seconds
MAX_LIMIT = 5_000
DEFAULT_LIMIT = 1_000
MAX_OFFSET = 2**31 - 1 - MAX_LIMIT


@router.get(
    "/batch-result/{request_id}", response_model=BatchResult, responses=openapi.errors(404, 422)
)
async def get_result(
    parts: PartsDep,
    owner: Owner,
    batch_id: BatchId,
    *,
    partial: Annotated[bool, Query(description="With what is done so far.")] = False,
    wait: Annotated[
        float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for the job's end.")
    ] = 0,
    offset: Annotated[
        int | None, Query(ge=0, le=MAX_OFFSET, description="First prompt of a page.")
    ] = None,
    limit: Annotated[
        int | None, Query(ge=1, le=MAX_LIMIT, description="Prompts of a page.")
    ] = None,
) -> Response:
    """Progress while the job runs; responses, errors and usage when it is finished.

    Reading deletes nothing. `responses` is in input order, null where a prompt failed or is open.
    """
    waiting = _finished(parts, owner, batch_id, wait) if wait else None
    batch = await (waiting or accepting.load(parts, owner, batch_id))
    paged = offset is not None or limit is not None
    if not (paged or partial or results.is_finished(batch)):
        return Response(results.render_head(batch), media_type="application/json")
    first = min(offset or 0, batch.total)
    stop = min(first + (limit or DEFAULT_LIMIT), batch.total) if paged else batch.total
    pieces = results.render(parts.offload, batch, first, stop, first if paged else None)
    # The first page before the status line: a store that is away is still a 503.
    opening = [await anext(pieces)]
    if stop - first <= results.FIRST_PAGE:
        opening += [piece async for piece in pieces]
        return Response(b"".join(opening), media_type="application/json")
    return StreamingResponse(results.resume(opening, pieces), media_type="application/json")


async def _finished(parts: Parts, owner: str, batch_id: str, seconds: float) -> Batch:
    """The job when it is finished, or as it stands when the time is up."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    with parts.waiters.watch(batch_id) as watch:
        while True:
            batch = await accepting.load(parts, owner, batch_id)
            left = deadline - clock()
            if results.is_finished(batch) or left <= 0 or parts.waiters.closing:
                return batch
            await watch.wait(left)
