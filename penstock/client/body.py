"""The body of `POST /batch-generate`, written piece by piece so that memory stays flat.

Knows JSON; does not know what the fields mean.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO

#: One prompt: its text, or a list of chat messages.
Message = str | Sequence[Mapping[str, str]]
#: Gives the same body anew at each call, so that a request can be sent again.
BodySource = Callable[[], Iterable[bytes]]

PIECE_BYTES = 65_536


def encoded(fields: Mapping[str, object], messages: Iterable[Message]) -> BodySource:
    """A body made anew at each sending, of messages that can be read again and again."""
    return lambda: encode(fields, messages)


def spooled(
    fields: Mapping[str, object], messages: Iterable[Message]
) -> tuple[BodySource, IO[bytes]]:
    """A body read from a file at each sending, of messages that can be read only once; and that
    file, to be closed."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115  # it outlives this call
    try:
        for piece in encode(fields, messages):
            spool.write(piece)
    except BaseException:
        spool.close()
        raise
    return lambda: _read(spool), spool


def encode(fields: Mapping[str, object], messages: Iterable[Message]) -> Iterator[bytes]:
    """`{fields…, "messages": […]}` in pieces of about 64 KiB."""
    head = "".join(f"{_json(name)}: {_json(value)}, " for name, value in fields.items())
    buffer = bytearray(_bytes("{" + head + '"messages": ['))
    separator = b""
    for message in messages:
        buffer += separator + _bytes(_json(message))
        separator = b",\n"
        if len(buffer) >= PIECE_BYTES:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer + b"]}")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _bytes(text: str) -> bytes:
    # A lone surrogate becomes its JSON escape; the server then refuses that prompt alone.
    return text.encode("utf-8", "backslashreplace")


def _read(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        yield piece
