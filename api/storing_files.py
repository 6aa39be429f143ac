"""One upload from its request to its row: what the form may say, and what becomes of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import PureWindowsPath
from typing import Final

from starlette.requests import Request

from api import uploads
from api.dependencies import Parts
from api.errors import printable
from penstock.errors import InvalidRequest, Unavailable
from penstock.ids import new_id
from penstock.schemas.openai_batches import MAX_LIFETIME, MIN_LIFETIME
from penstock.telemetry import get_logger
from storage import files
from storage.blobs import NewBlob
from storage.files import FileRecord, NewFile
from storage.text import storable

log = get_logger(__name__)

PURPOSE: Final = "batch"
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
MAX_NAME: Final = 255  # characters of a file's name


async def store(parts: Parts, owner: str, request: Request) -> FileRecord:
    """Receive a file and keep it. Raises `InvalidRequest`, `TooLarge`, `LimitReached`, and leaves
    nothing behind then."""
    limits, most = parts.config.file_limits, parts.config.max_file_bytes
    boundary = uploads.boundary_of(request.headers, most)
    announced = int(request.headers.get("content-length", 0))
    with parts.budget.hold() as hold:
        hold.take(2 * uploads.PIECE)
        await parts.offload.read(
            lambda conn: files.check_room(conn, owner, limits, min(announced, most))
        )
        name = new_id("file")
        blob = await parts.offload.files(lambda: parts.blobs.create(name))
        try:
            rules = uploads.Rules(most, CHECKS, ("purpose",))
            form = await uploads.receive(request, parts.offload, blob, boundary, rules)
            file = _new_file(name, owner, form, parts.config.file_lifetime)
            stored = await parts.offload.read(lambda conn: files.add(conn, file, limits))
        except BaseException:
            _discard(parts, name, blob)
            raise
    log.info("file.stored", file=name, bytes=form.bytes)
    return stored


def _discard(parts: Parts, name: str, blob: NewBlob) -> None:
    """At once, for the task may have been cancelled."""
    blob.abort()
    with suppress(Unavailable):  # then it is an orphan, and found later
        parts.blobs.delete(name)


def _new_file(name: str, owner: str, form: uploads.Upload, lifetime: float) -> NewFile:
    seconds = form.fields.get(SECONDS)
    if (seconds is None) != (ANCHOR not in form.fields):
        missing = SECONDS if seconds is None else ANCHOR
        raise InvalidRequest(f"`{missing}` is missing.", param=missing)
    # The last part of a path, of whichever system.
    filename = PureWindowsPath(storable(form.filename) or "").name[:MAX_NAME]
    return NewFile(
        id=name,
        owner=owner,
        purpose=form.fields["purpose"],
        filename=filename or "upload.jsonl",
        bytes=form.bytes,
        sha256=form.sha256,
        lifetime=lifetime if seconds is None else int(seconds),
    )


def _check_purpose(purpose: str) -> None:
    if purpose != PURPOSE:
        shown = printable(purpose)
        raise InvalidRequest(
            f"The purpose `{shown}` is not supported; files are for `{PURPOSE}`.", param="purpose"
        )


def _check_anchor(anchor: str) -> None:
    if anchor != "created_at":
        raise InvalidRequest(f"`{ANCHOR}` has to be created_at.", param=ANCHOR)


def _check_seconds(seconds: str) -> None:
    number = seconds if seconds.isascii() and seconds.isdigit() and len(seconds) < 10 else "0"
    if not MIN_LIFETIME <= int(number) <= MAX_LIFETIME:
        raise InvalidRequest(
            f"`{SECONDS}` has to be from {MIN_LIFETIME} to {MAX_LIFETIME}.", param=SECONDS
        )


CHECKS: Final = {"purpose": _check_purpose, ANCHOR: _check_anchor, SECONDS: _check_seconds}
