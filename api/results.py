"""Jobs as answers: status, progress, and responses in input order, page by page.

Each page is a read of its own, so that a slow client holds no connection and no job is in memory
as a whole. Knows no HTTP.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Final

from sqlalchemy import Connection

from api.offload import Offload
from penstock.schemas.batch import BatchResult, JobStatus, JobSummary, Progress, Usage
from storage import reading
from storage.records import Batch, ResultRow
from storage.states import TERMINAL_BATCH, BatchStatus

FIRST_PAGE: Final = 64  # prompts read at once, before it is known how long their answers are
FIRST_DETAILS: Final = 8  # details read at once: one may have megabytes
MAX_PAGE: Final = 1_000
PAGE_BYTES: Final = 1_000_000  # of one piece; a slow client's is held until it is taken
FLAGS: Final = 100_000  # prompts of one piece of what is told of each in few bytes

RenderPage = Callable[[int, int, Connection], bytes]


class _Beside:
    """What pages of responses leave for the members that come after them: what has failed, what is
    an answer to an equal prompt, and the tokens in and out, -1 where there is no outcome."""

    def __init__(self, first: int, stop: int) -> None:
        self._first = first
        self.errors: list[bytes] = []
        self._reused = bytearray(stop - first)
        self._tokens = array("i", [-1]) * (2 * (stop - first))

    def note(self, row: ResultRow) -> None:
        at = row.position - self._first
        self._tokens[2 * at], self._tokens[2 * at + 1] = row.prompt_tokens, row.completion_tokens
        if row.error_code is None:
            self._reused[at] = row.from_cache
        else:
            self.errors.append(_render_error(row))

    def tokens(self) -> Iterator[bytes]:
        """As pieces of a list."""
        for start in range(0, len(self._reused), FLAGS):
            counts = iter(self._tokens[2 * start : 2 * (start + FLAGS)])
            told = (f"[{one}, {two}]" for one, two in zip(counts, counts, strict=True))
            listed = ", ".join("null" if one == "[-1, -1]" else one for one in told)
            yield (b", " if start else b"") + listed.encode()

    def reused(self) -> Iterator[bytes]:
        """As pieces of a list; none where nothing is."""
        if not any(self._reused):
            return
        for start in range(0, len(self._reused), FLAGS):
            yield (b", " if start else b"") + _flags(self._reused[start : start + FLAGS])


def is_finished(batch: Batch) -> bool:
    return batch.status in TERMINAL_BATCH


def job_status(batch: Batch) -> JobStatus:
    """What a client sees: a job that is not finished is processing."""
    return JobStatus(batch.status.value) if is_finished(batch) else JobStatus.PROCESSING


def is_queued(batch: Batch) -> bool:
    return batch.status in (BatchStatus.VALIDATING, BatchStatus.QUEUED)


def progress_of(batch: Batch) -> Progress:
    return Progress(total=batch.total, completed=batch.completed, failed=batch.failed)


def summary_of(batch: Batch) -> JobSummary:
    return JobSummary(
        request_id=batch.id,
        status=JobStatus.QUEUED if is_queued(batch) else job_status(batch),
        model=batch.model,
        progress=progress_of(batch),
        created_at=batch.created_at.timestamp(),
        metadata=dict(batch.metadata),
    )


def result_of(batch: Batch, offset: int | None = None) -> BatchResult:
    """The job without its responses."""
    return BatchResult(
        request_id=batch.id,
        status=job_status(batch),
        progress=progress_of(batch),
        usage=Usage(
            prompt_tokens=batch.prompt_tokens,
            completion_tokens=batch.completion_tokens,
            total_tokens=batch.prompt_tokens + batch.completion_tokens,
            saved_tokens=batch.saved_tokens,
        ),
        eta_seconds=_eta(batch),
        processing_time=_processing_time(batch),
        metadata=dict(batch.metadata),
        offset=offset,
    )


def _eta(batch: Batch) -> float | None:
    done = batch.completed + batch.failed
    if is_finished(batch) or batch.started_at is None or not done:
        return None
    elapsed = (batch.now - batch.started_at).total_seconds()
    return round(max(elapsed, 0.0) / done * (batch.total - done), 1)


def _processing_time(batch: Batch) -> float | None:
    if batch.finished_at is None:
        return None
    start = batch.started_at or batch.created_at
    return round(max((batch.finished_at - start).total_seconds(), 0.0), 3)


def render_head(batch: Batch, offset: int | None = None) -> bytes:
    """The job as a JSON object, without members that do not apply."""
    head = result_of(batch, offset).model_dump(mode="json", exclude_none=True)
    if not is_finished(batch):
        head.setdefault("eta_seconds", None)
    return json.dumps(head).encode()


async def render(
    offload: Offload, batch: Batch, first: int, stop: int, offset: int | None
) -> AsyncIterator[bytes]:
    """The job with its responses, tokens and errors at positions `first` to `stop`, as pieces of
    JSON; with `details` where it asked for more than texts, `from_cache` where something was
    reused."""
    beside = _Beside(first, stop)
    opening = render_head(batch, offset)[:-1] + b', "responses": ['
    read = partial(_render_page, batch.id, beside)
    async for piece in _pages(offload, read, first, stop, FIRST_PAGE):
        yield opening + piece
        opening = b""
    if batch.detailed:
        opening += b'], "details": ['
        read = partial(_render_details, batch.id)
        async for piece in _pages(offload, read, first, stop, FIRST_DETAILS):
            yield opening + piece
            opening = b""
    for name, pieces in (("tokens", beside.tokens()), ("from_cache", beside.reused())):
        for number, piece in enumerate(pieces):
            yield (b"" if number else opening + f'], "{name}": ['.encode()) + piece
            opening = b""
    yield opening + b'], "errors": [' + b", ".join(beside.errors) + b"]}"


async def _pages(
    offload: Offload, read: RenderPage, first: int, stop: int, page: int
) -> AsyncIterator[bytes]:
    """The elements of a list, with commas between them; as many at once as make a piece."""
    start, comma = first, b""
    while start < stop:
        end = min(start + page, stop)
        elements = await offload.read(partial(read, start, end))
        yield comma + elements
        comma, start = b", ", end
        page = max(1, min(MAX_PAGE, page * PAGE_BYTES // max(len(elements), 1)))


async def resume(opening: list[bytes], pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces that were taken already, then the rest."""
    for piece in opening:
        yield piece
    async for piece in pieces:
        yield piece


def _render_page(batch_id: str, beside: _Beside, start: int, end: int, conn: Connection) -> bytes:
    """The responses; the rest of what is told of each prompt goes `beside` them."""
    responses = [b"null"] * (end - start)
    for row in reading.results(conn, batch_id, start, end - start):
        if row.error_code is None:
            responses[row.position - start] = _dump(row.text)
        beside.note(row)
    return b", ".join(responses)


def _render_details(batch_id: str, start: int, end: int, conn: Connection) -> bytes:
    found = reading.details(conn, batch_id, start, end - start)
    return b", ".join(found.get(position, "null").encode() for position in range(start, end))


def _flags(marks: bytearray) -> bytes:
    return b", ".join(b"true" if mark else b"false" for mark in marks)


def _render_error(row: ResultRow) -> bytes:
    return _dump(
        {
            "index": row.position,
            "code": row.error_code,
            "message": row.error_message or "The prompt has no result.",
        }
    )


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
