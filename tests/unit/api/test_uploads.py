"""Forms as they come in: in any pieces, in any order, slowly, and wrong."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message

from api.errors import BodyTimeout, MalformedBody, UnsupportedMedia
from api.offload import Offload
from api.uploads import FORM_SLACK, Rules, Upload, boundary_of, receive
from penstock.errors import InvalidRequest, PenstockError, TooLarge
from storage.blobs import LocalBlobs
from storage.database import Database

NAME = "file_" + "0" * 32
CONTENT = b'{"a": 1}\r\n--not the boundary\r\n\r\n--B\n{"b": 2}\n'


def part(name: str, content: bytes, more: str = "") -> bytes:
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


FILE = part("file", CONTENT, '; filename="in.jsonl"')
PURPOSE = part("purpose", b"batch")
END = b"--B--\r\n"


def refuse(value: str) -> None:
    if value != "batch":
        raise InvalidRequest("wrong", param="purpose")


RULES = Rules(limit=1_000, checks={"purpose": refuse}, required=("purpose",))


def receive_all(
    folder: Path, pieces: Iterable[bytes], rules: Rules = RULES, *, silent: bool = False
) -> Upload:
    """What becomes of a body that comes in these pieces; `silent`: and then nothing any more."""
    coming = iter(pieces)

    async def more() -> Message:
        piece = next(coming, None)
        if piece is None and silent:
            await asyncio.Event().wait()
        await asyncio.sleep(0)  # as a connection lets others run
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def run() -> Upload:
        with closing(Database("postgresql://nobody@127.0.0.1:1/nothing")) as database:
            request = Request({"type": "http", "method": "POST", "headers": []}, more)
            blob = LocalBlobs(folder).create(NAME)
            try:
                return await receive(request, Offload(database, 5), blob, b"B", rules)
            finally:
                blob.abort()

    return asyncio.run(run())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_the_file_is_stored_byte_for_byte_in_whatever_pieces_it_comes(
    tmp_path: Path, size: int
) -> None:
    body = FILE + PURPOSE + END
    pieces = (body[start : start + size] for start in range(0, len(body), size))

    upload = receive_all(tmp_path, pieces)

    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert (upload.filename, upload.bytes) == ("in.jsonl", len(CONTENT))
    assert upload.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert upload.fields == {"purpose": "batch"}


@pytest.mark.parametrize(
    ("body", "error", "param"),
    [
        (b"", MalformedBody, None),
        (FILE + PURPOSE, MalformedBody, None),
        (FILE[:40], MalformedBody, None),
        ((FILE + PURPOSE + END).replace(b"--B", b"--C"), MalformedBody, None),
        (b"x" * 500, MalformedBody, None),
        (b"--B\r\nX" + b"x" * 50_000, MalformedBody, None),
        (b"\r\n" * FORM_SLACK, TooLarge, None),
        (FILE + PURPOSE + END + b"x" * 2 * FORM_SLACK, TooLarge, None),
        (part("file", b"x" * 1_001, '; filename="f"'), TooLarge, "file"),
        (PURPOSE + END, InvalidRequest, "file"),
        (FILE + END, InvalidRequest, "purpose"),
        (FILE + FILE, InvalidRequest, "file"),
        (PURPOSE + PURPOSE, InvalidRequest, "purpose"),
        (part("purpose", b"vision") + END, InvalidRequest, "purpose"),
        (part("purpose", b"x" * 2_000), InvalidRequest, "purpose"),
        (part("other", b""), InvalidRequest, "other"),
        (b"--B\r\nX: y\r\n\r\n", InvalidRequest, ""),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_form_is_refused_and_leaves_nothing(
    tmp_path: Path, body: bytes, error: type[PenstockError], param: str | None
) -> None:
    with pytest.raises(error) as caught:
        receive_all(tmp_path, [body])

    assert (type(caught.value), caught.value.param) == (error, param)
    assert not any(tmp_path.iterdir())


def test_a_wrong_purpose_is_refused_before_the_file_has_come(tmp_path: Path) -> None:
    opening = part("purpose", b"assistants") + FILE[:-2]
    endless = chain([opening], repeat(b"x" * 65_536))

    with pytest.raises(InvalidRequest):
        receive_all(tmp_path, endless, replace(RULES, limit=10**12))


def test_a_silent_body_and_one_that_drips_are_given_up(tmp_path: Path) -> None:
    hasty = replace(RULES, patience=0.1)

    with pytest.raises(BodyTimeout):
        receive_all(tmp_path, [FILE], hasty, silent=True)
    with pytest.raises(BodyTimeout):
        receive_all(tmp_path, (b"\r" for _ in range(10**9)), replace(hasty, slowest=10**9))


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, UnsupportedMedia),
        ({"content-type": "application/json"}, UnsupportedMedia),
        ({"content-type": "multipart/form-data"}, UnsupportedMedia),
        ({"content-type": "multipart/form-data; boundary="}, UnsupportedMedia),
        (
            {"content-type": "multipart/form-data; boundary=B", "content-encoding": "gzip"},
            UnsupportedMedia,
        ),
        (
            {"content-type": "multipart/form-data; boundary=B", "content-length": "70000"},
            TooLarge,
        ),
        (
            {"content-type": "multipart/form-data; boundary=B", "content-length": "-1"},
            InvalidRequest,
        ),
    ],
)
def test_headers_alone_may_be_reason_enough(
    headers: dict[str, str], error: type[PenstockError]
) -> None:
    with pytest.raises(error) as caught:
        boundary_of(Headers(headers), 1_000)
    assert type(caught.value) is error


def test_a_boundary_is_found_with_and_without_quotes() -> None:
    for given in ('multipart/form-data; boundary="a b"', "Multipart/Form-Data; boundary=a b"):
        assert boundary_of(Headers({"content-type": given}), 9) == b"a b"


def test_a_large_file_passes_through_without_being_held(tmp_path: Path) -> None:
    content = b"x" * 65_536
    opening, count = FILE[: FILE.index(CONTENT)], 800
    pieces = chain([PURPOSE + opening], repeat(content, count), [b"\r\n" + END])
    tracemalloc.start()
    try:
        upload = receive_all(tmp_path, pieces, replace(RULES, limit=10**9))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert upload.bytes == count * len(content)
    assert peak < upload.bytes / 4
