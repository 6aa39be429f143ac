"""Uploads: a form of small fields and one file, which goes to its blob as it comes.

Holds a piece of the body at a time; refuses by its headers what is too large, and as it comes what
is slow or in no form. Knows no table.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import Request

from api.body import READ_TIMEOUT, check_length
from api.errors import BodyTimeout, MalformedBody, UnsupportedMedia, printable
from api.offload import Offload
from penstock.errors import InvalidRequest, TooLarge
from storage.blobs import NewBlob

#: Bytes a second, on average, below which a body is too slow.
SLOWEST: Final = 50_000
PIECE: Final = 1 << 20  # bytes that are parsed and written at once
FORM_SLACK: Final = 65_536  # bytes of a form beside its file
MAX_FIELD: Final = 1_024  # bytes
FILE: Final = "file"

# A client's mistake is answered, and nothing to warn of.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass(slots=True)
class Upload:
    """What a form said so far."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None  #: None: no file came yet
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a form may hold."""

    limit: int  #: bytes of the file
    #: By a field's name, what raises `InvalidRequest` for a wrong value, as soon as it is there.
    checks: Mapping[str, Callable[[str], object]]
    required: tuple[str, ...]
    patience: float = READ_TIMEOUT  #: seconds without a byte, and what a slow body gets beside
    slowest: float = SLOWEST  #: bytes a second, on average


async def receive(
    request: Request, offload: Offload, blob: NewBlob, boundary: bytes, rules: Rules
) -> Upload:
    """The whole form, its file in `blob`, which is committed at the end. Raises `InvalidRequest`
    and its kin; the caller aborts the blob then."""
    form = _Form(boundary, blob, rules)
    most = rules.limit + FORM_SLACK
    clock = asyncio.get_running_loop().time
    start, received = clock(), 0
    try:
        async with asyncio.timeout(rules.patience) as deadline:
            async for chunk in request.stream():
                received += len(chunk)
                form.take(chunk)
                if received > most:
                    raise TooLarge(f"The body is larger than {most} bytes.")
                if form.waiting >= PIECE:
                    await offload.files(form.write)
                slow = start + rules.patience + received / rules.slowest
                deadline.reschedule(min(clock() + rules.patience, slow))
            await offload.files(form.write)
    except TimeoutError:
        raise BodyTimeout from None
    return await offload.files(form.finish)


def boundary_of(headers: Headers, limit: int) -> bytes:
    """What is between the parts of a form that the headers announce; what they tell is enough to
    refuse many."""
    media, options = parse_options_header(headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if media != b"multipart/form-data":
        raise UnsupportedMedia("Send the file as multipart/form-data.", param="Content-Type")
    if not boundary:
        raise UnsupportedMedia("The form has no boundary.", param="Content-Type")
    check_length(headers, limit + FORM_SLACK)
    return boundary


class _Form:
    """What the parser finds, part by part."""

    def __init__(self, boundary: bytes, blob: NewBlob, rules: Rules) -> None:
        self._blob = blob
        self._rules = rules
        self._taken = bytearray()
        self._upload = Upload()
        self._hash = hashlib.sha256()
        self._header: list[bytes] = [b"", b""]
        self._disposition = b""
        self._name = ""
        self._value = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError:
            raise UnsupportedMedia(
                "The form's boundary is too long.", param="Content-Type"
            ) from None

    @property
    def waiting(self) -> int:
        """Bytes that were taken and not written yet."""
        return len(self._taken)

    def take(self, chunk: bytes) -> None:
        """The next bytes of the body."""
        self._taken += chunk

    def write(self) -> None:
        """Find the parts in what was taken; blocks for the file's."""
        try:
            self._parser.write(bytes(self._taken))
        except FormParserError:
            raise MalformedBody("The body is not the form that its boundary announces.") from None
        self._taken.clear()

    def finish(self) -> Upload:
        """The body has ended."""
        if not self._ended:
            raise MalformedBody("The form ends before its last boundary.")
        given = self._upload.fields.keys() | ({FILE} if self._upload.filename is not None else ())
        for name in (FILE, *self._rules.required):
            if name not in given:
                raise InvalidRequest(f"`{name}` is missing.", param=name)
        self._upload.sha256 = self._hash.hexdigest()
        self._blob.commit()
        return self._upload

    def _on_part_begin(self) -> None:
        self._header = [b"", b""]
        self._disposition = self._value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode(errors="replace")
        if self._name == FILE:
            if self._upload.filename is not None:
                raise InvalidRequest("`file` is given twice.", param=FILE)
            self._upload.filename = options.get(b"filename", b"").decode(errors="replace")
        elif self._name not in self._rules.checks or self._name in self._upload.fields:
            shown = printable(self._name)
            raise InvalidRequest(f"`{shown}` is not a field of this form.", param=shown)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        content = data[start:end]
        if self._name == FILE:
            self._upload.bytes += len(content)
            if self._upload.bytes > self._rules.limit:
                raise TooLarge(f"The file is larger than {self._rules.limit} bytes.", param=FILE)
            self._hash.update(content)
            self._blob.write(content)
            return
        self._value += content
        if len(self._value) > MAX_FIELD:
            raise InvalidRequest(f"`{self._name}` is too long.", param=self._name)

    def _on_part_end(self) -> None:
        if self._name != FILE:
            value = self._value.decode(errors="replace")
            self._rules.checks[self._name](value)
            self._upload.fields[self._name] = value

    def _on_end(self) -> None:
        self._ended = True
