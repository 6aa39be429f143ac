"""A batch's output and error files, made of its outcomes as they are read, page by page.

Lines are in input order and of OpenAI's form. Knows storage; knows no HTTP.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection

from api.errors import BAD_PROMPT
from api.offload import Offload
from api.openai_bodies import render_completion
from penstock.errors import PromptError
from storage import output
from storage.openai_batches import OpenaiBatch
from storage.output import OutputLine

FIRST_PAGE: Final = 16  # lines read at once, before it is known how long they are
MAX_PAGE: Final = 1_000
GROWTH: Final = 4
PAGE_BYTES: Final = 1_000_000  # of one piece; a slow client's is held until it is taken

#: Ends that are the batch's, and not the request's.
OF_THE_BATCH: Final = {
    PromptError.EXPIRED.value: "batch_expired",
    PromptError.CANCELLED.value: "batch_cancelled",
}
IDS: Final = {"/v1/chat/completions": "chatcmpl", "/v1/completions": "cmpl"}


@dataclass(frozen=True, slots=True)
class OutputFile:
    """Which outcomes of which batch: results, or errors where not `good`."""

    batch_id: str
    endpoint: str
    model: str
    total: int
    good: bool


def file_of(batch: OpenaiBatch, file_id: str) -> OutputFile:
    """One of the two files of a batch."""
    good = file_id == batch.output_file_id
    return OutputFile(batch.job.id, batch.endpoint, batch.job.model, batch.job.total, good)


async def stream(offload: Offload, file: OutputFile) -> AsyncIterator[bytes]:
    """The file in pieces; what finishes meanwhile is in it where its place has not passed."""
    pages = _Pages(file.total)
    for first, stop in pages:
        piece = await offload.read(partial(_render, file, first, stop))
        pages.learn(len(piece))
        if piece:
            yield piece


def count(conn: Connection, file: OutputFile) -> int:
    """Bytes of the file as it stands."""
    pages, size = _Pages(file.total), 0
    for first, stop in pages:
        piece = _render(file, first, stop, conn)
        pages.learn(len(piece))
        size += len(piece)
    return size


class _Pages:
    """Positions from the first to the last, in pages that come to about the same bytes."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._size = FIRST_PAGE

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = 0
        while first < self._total:
            stop = min(first + self._size, self._total)
            yield first, stop
            first = stop

    def learn(self, size: int) -> None:
        """The last page had so many bytes; the next lines may be longer, so it grows slowly."""
        fitting = self._size * PAGE_BYTES // max(size, 1)
        self._size = max(1, min(MAX_PAGE, GROWTH * self._size, fitting))


def _render(file: OutputFile, first: int, stop: int, conn: Connection) -> bytes:
    found = output.lines(conn, file.batch_id, first, stop, good=file.good)
    return b"".join(_line(file, line) for line in found)


def _line(file: OutputFile, line: OutputLine) -> bytes:
    name = f"{file.batch_id.removeprefix('batch_')}_{line.row.position}"
    response, error = (_answer if file.good else _failure)(file, line, name)
    shown = {
        "id": f"batch_req_{name}",
        "custom_id": line.custom_id,
        "response": response,
        "error": error,
    }
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _answer(file: OutputFile, line: OutputLine, name: str) -> tuple[object, object]:
    call_id = f"{IDS[file.endpoint]}-{name}"
    body = render_completion(
        file.endpoint, call_id, line.created, file.model, line.row, line.detail, line.asked
    )
    return {"status_code": 200, "request_id": f"req_{name}", "body": body}, None


def _failure(file: OutputFile, line: OutputLine, name: str) -> tuple[object, object]:
    """What never ran has an error alone; what ran and failed, the answer it would have got."""
    code = line.row.error_code or PromptError.ENGINE.value
    message = line.row.error_message or "The request has no result."
    if line.refused or code in OF_THE_BATCH:
        return None, {"code": OF_THE_BATCH.get(code, code), "message": message}
    own_fault = code in BAD_PROMPT
    error = {
        "message": message,
        "type": "invalid_request_error" if own_fault else "server_error",
        "param": None,
        "code": code,
    }
    status = 400 if own_fault else 500
    response = {"status_code": status, "request_id": f"req_{name}", "body": {"error": error}}
    return response, None
