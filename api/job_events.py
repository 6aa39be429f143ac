"""A job as events: progress, one `result` for each prompt as it ends, and `end`.

The results are read page by page, so that no job is in memory as a whole, and a slow client holds
no connection to the database. Knows storage; knows no HTTP.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

from api import accepting, results, sse
from api.dependencies import Parts
from penstock.errors import Forbidden, InvalidRequest, NotFound, Unauthorized, Unavailable
from penstock.schemas.batch import Progress
from storage import arrivals
from storage.arrivals import Arrival, Page, Place
from storage.records import Batch

Check = Callable[[], Awaitable[object]]

NUMBERED: Final = re.compile(r"(\d{1,18})-(\d{1,9})")
UNNUMBERED: Final = re.compile(r"p(\d{1,9})")

PAGE: Final = 64  # results read at once
PAGE_OF_DETAILS: Final = 8  # one may have megabytes
#: Seconds between two looks: longer as long as nothing happens. The job's end is told at once.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 4.0


def parse_place(text: str | None) -> Place:
    """The id of a `result` event as a client sends it back. Raises `InvalidRequest`."""
    if text is None:
        return Place()
    if found := NUMBERED.fullmatch(text):
        return Place(int(found[1]), int(found[2]))
    if found := UNNUMBERED.fullmatch(text):
        return Place(unnumbered=int(found[1]))
    raise InvalidRequest("`Last-Event-ID` is not of this stream.", param="Last-Event-ID")


def id_of(place: Place) -> str:
    if place.unnumbered is not None:
        return f"p{place.unnumbered}"
    return f"{place.number}-{place.taken}"


async def events(
    parts: Parts, batch: Batch, place: Place, check: Check
) -> AsyncGenerator[bytes, None]:
    """From `place` on, until the job is finished, gone, or the process is about to end; or until
    `check`, asked before each look, raises `Unauthorized` or `Forbidden`: a job may take hours, and
    a key be revoked meanwhile. While the database is away there are none."""
    said: Progress | None = None
    pause = FIRST_PAUSE
    with parts.waiters.watch(batch.id) as watch:
        while not parts.waiters.closing:
            try:
                await check()
                job = await accepting.load(parts, batch.owner, batch.id)
                pause = min(2 * pause, LONGEST_PAUSE)
                finished, progress = results.is_finished(job), results.progress_of(job)
                if progress != said:
                    pause = FIRST_PAUSE
                    yield sse.event(progress.model_dump(), name="progress")
                if progress != said or finished:
                    async with aclosing(_new(parts, job, place)) as new:
                        async for arrival in new:
                            place = arrival.place
                            yield sse.event(_shown(arrival), id=id_of(place), name="result")
                    said = progress
                if finished:
                    data = results.result_of(job).model_dump(mode="json", exclude_none=True)
                    yield sse.event(data, id=sse.LAST, name="end")
                    return
            except (NotFound, Unauthorized, Forbidden):
                return
            except Unavailable:
                pause = LONGEST_PAUSE
            await watch.wait(pause)


async def _new(parts: Parts, job: Batch, place: Place) -> AsyncGenerator[Arrival, None]:
    """What there is behind `place` at this moment; of a finished job, all of it."""
    page = await _page(parts, job, place)
    while page.end is not None:
        for arrival in page.arrivals:
            yield arrival
        place = page.end
        page = await _page(parts, job, place)


async def _page(parts: Parts, job: Batch, place: Place) -> Page:
    limit = PAGE_OF_DETAILS if job.detailed else PAGE
    if place.unnumbered is None:
        page = await parts.offload.read(lambda conn: arrivals.after(conn, job.id, place, limit))
        if page.end is not None or not results.is_finished(job):
            return page
    first = place.unnumbered or 0
    return await parts.offload.read(lambda conn: arrivals.unnumbered(conn, job.id, first, limit))


def _shown(arrival: Arrival) -> dict[str, Any]:
    row = arrival.row
    shown: dict[str, Any] = {
        "index": row.position,
        "response": row.text,
        "finish_reason": row.finish_reason,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
    }
    if row.from_cache:
        shown["from_cache"] = True
    if row.error_code is not None:
        message = row.error_message or "The prompt has no result."
        shown["error"] = {"code": row.error_code, "message": message}
    if arrival.detail is not None:
        shown["detail"] = json.loads(arrival.detail)
    return shown
