"""The lines of a text file with their numbers and the file's checksum. Knows no table format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from penstock.annotation.table.formats import Compression
from penstock.annotation.table.streams import reading
from penstock.errors import InvalidRequest

MAX_LINE_BYTES = 16_777_216
BOM = "\ufeff"


class Lines:
    """Iterates once over a UTF-8 file, ends of lines (`\\n`, `\\r\\n`, `\\r`) included.

    `checksum` counts at the end. A byte order mark is left out and remembered.
    """

    def __init__(self, path: Path, around: Compression = Compression.NONE) -> None:
        self.path = path
        self.number = 0  #: of the line given last, from 1
        self.marked = False  #: it begins with a byte order mark
        self.checksum = ""
        self._around = around

    def __iter__(self) -> Iterator[str]:
        rest = b""
        with reading(self.path, self._around) as (file, below):
            while raw := file.readline(MAX_LINE_BYTES + 1 - len(rest)):
                # Old programs end lines by a bare carriage return.
                pieces = (rest + raw).splitlines(keepends=True) if rest or b"\r" in raw else [raw]
                rest = b"" if raw.endswith(b"\n") else pieces.pop()
                for piece in pieces:
                    yield self._decode(piece)
                if len(rest) > MAX_LINE_BYTES:
                    self.number += 1
                    raise self.error(f"it is longer than {MAX_LINE_BYTES // 2**20} MiB")
            if rest:
                yield self._decode(rest)
            self.checksum = below.checksum

    def error(self, reason: str, line: int | None = None) -> InvalidRequest:
        """An error that names the file and the line (by default the last one)."""
        return InvalidRequest(f"{self.path}, line {line or self.number}: {reason}.", param="input")

    def _decode(self, raw: bytes) -> str:
        self.number += 1
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(
                f"byte {error.start + 1} of it is not UTF-8; save the file as UTF-8"
            ) from None
        if self.number == 1 and text.startswith(BOM):
            self.marked = True
            return text[len(BOM) :]
        return text
