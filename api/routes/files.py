"""`/v1/files`: uploads, and the files of batches; listed, read and deleted."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection
from starlette.responses import StreamingResponse

from api import batch_output, openapi, results, storing_files, sweeping
from api.dependencies import Owner, Parts, PartsDep
from api.openai_errors import OpenaiRoute
from api.scopes import needs
from penstock.errors import InvalidRequest, NotFound
from penstock.keys import Scope
from penstock.schemas.openai_files import FileDeleted, FileList, FileObject
from storage import files, openai_batches
from storage.files import FileRecord
from storage.openai_batches import OpenaiBatch

router = APIRouter(
    prefix="/v1/files",
    tags=["files"],
    dependencies=[needs(Scope.FILES, Scope.JOBS)],
    route_class=OpenaiRoute,
)

FILE_ID: Final = re.compile(r"file_[0-9a-f]{32}")
MAX_LIST: Final = 10_000
PIECE: Final = 1 << 18  # bytes of a download that are read at once
MEDIA_TYPE: Final = "application/octet-stream"
FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer"},
                    },
                }
            }
        },
    }
}
CONTENT: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "`X-Incomplete: true` while the batch still runs.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


def get_file_id(file_id: str) -> str:
    """The id in the path. What is not of an id's form is unknown, and never reaches SQL."""
    if not FILE_ID.fullmatch(file_id):
        raise _unknown()
    return file_id


FileId = Annotated[str, Depends(get_file_id)]


@router.post(
    "",
    response_model=FileObject,
    responses=openapi.errors(400, 413, 415, 429),
    openapi_extra=FORM,
)
async def upload(request: Request, parts: PartsDep, owner: Owner) -> FileObject:
    """Store a file of requests, one JSON object a line, for `/v1/batches`."""
    return _object(await storing_files.store(parts, owner, request))


@router.get("", responses=openapi.errors(400))
async def list_files(
    parts: PartsDep,
    owner: Owner,
    *,
    purpose: Annotated[str | None, Query(pattern=r"^[a-z_-]{1,64}$")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = MAX_LIST,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(description="A file's id: those behind it.")] = None,
) -> FileList:
    """Your files by age, newest first."""
    if after is not None and not FILE_ID.fullmatch(after):
        raise InvalidRequest("`after` has to be a file's id.", param="after")

    def read(conn: Connection) -> list[FileRecord]:
        return files.page(
            conn,
            owner,
            limit=limit + 1,
            after=after,
            purpose=purpose,
            ascending=order == "asc",
        )

    found = await parts.offload.read(read)
    shown = [_object(file) for file in found[:limit]]
    return FileList(
        data=shown,
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
        has_more=len(found) > limit,
    )


@router.get("/{file_id}", responses=openapi.errors(404))
async def retrieve(parts: PartsDep, owner: Owner, file_id: FileId) -> FileObject:
    """What there is to know of a file."""
    file = await parts.offload.read(lambda conn: files.get(conn, owner, file_id))
    if file is None:
        raise _unknown()
    return _object(file)


@router.delete("/{file_id}", responses=openapi.errors(404))
async def delete(parts: PartsDep, owner: Owner, file_id: FileId) -> FileDeleted:
    """Delete a file. A batch's outcomes stay with the batch."""
    file = await parts.offload.read(lambda conn: files.delete(conn, owner, file_id))
    if file is None:
        raise _unknown()
    if file.batch_id is None:
        await sweeping.delete_blob(parts.offload, parts.blobs, file_id)
    return FileDeleted(id=file_id)


@router.get(
    "/{file_id}/content",
    response_class=StreamingResponse,
    responses={**openapi.errors(404), **CONTENT},
)
async def content(parts: PartsDep, owner: Owner, file_id: FileId) -> StreamingResponse:
    """The file itself. That of a batch which still runs has what is done so far."""
    file, batch = await parts.offload.read(lambda conn: _with_batch(conn, owner, file_id))
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
        "X-Content-Type-Options": "nosniff",
    }
    if batch is None:
        stream = await parts.offload.files(lambda: parts.blobs.open(file_id))
        pieces = _blob(parts, stream)
    else:
        pieces = batch_output.stream(parts.offload, batch_output.file_of(batch, file_id))
        # The first page before the status line: a store that is away is still a 503.
        pieces = results.resume([await anext(pieces, b"")], pieces)
    if batch is not None and not results.is_finished(batch.job):
        headers["X-Incomplete"] = "true"
    elif file.bytes is not None:
        headers["Content-Length"] = str(file.bytes)
    return StreamingResponse(pieces, media_type=MEDIA_TYPE, headers=headers)


def _with_batch(
    conn: Connection, owner: str, file_id: str
) -> tuple[FileRecord, OpenaiBatch | None]:
    file = files.get(conn, owner, file_id)
    if file is None:
        raise _unknown()
    if file.batch_id is None:
        return file, None
    batch = openai_batches.get(conn, owner, file.batch_id)
    if batch is None:
        raise _unknown()
    return file, batch


async def _blob(parts: Parts, stream: BinaryIO) -> AsyncIterator[bytes]:
    with stream:
        while piece := await parts.offload.files(lambda: stream.read(PIECE)):
            yield piece


def _object(file: FileRecord) -> FileObject:
    return FileObject.model_validate(
        {
            "id": file.id,
            "bytes": file.bytes or 0,
            "created_at": int(file.created_at.timestamp()),
            "expires_at": None if file.expires_at is None else int(file.expires_at.timestamp()),
            "filename": file.filename,
            "purpose": file.purpose,
        }
    )


def _unknown() -> NotFound:
    return NotFound("There is no file under this id.")
