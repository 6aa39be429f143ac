"""The lines of a text file with their numbers and the file's checksum. Knows no table format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from penstock.errors import InvalidRequest

MAX_LINE_BYTES = 16_777_216
BOM = "\ufeff"


class Lines:
    """Iterates once over a UTF-8 file, ends of lines (`\\n`, `\\r\\n`, `\\r`) included.

    `checksum` counts at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0  #: of the line given last, from 1
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        rest = b""
        with self.path.open("rb") as file:
            while raw := file.readline(MAX_LINE_BYTES + 1 - len(rest)):
                self._hash.update(raw)
                # Old programs end lines by a bare carriage return.
                pieces = (rest + raw).splitlines(keepends=True)
                rest = b"" if raw.endswith(b"\n") else pieces.pop()
                for piece in pieces:
                    self.number += 1
                    yield self._decode(piece)
                if len(rest) > MAX_LINE_BYTES:
                    self.number += 1
                    raise self.error(f"it is longer than {MAX_LINE_BYTES // 2**20} MiB")
        if rest:
            self.number += 1
            yield self._decode(rest)

    @property
    def checksum(self) -> str:
        return self._hash.hexdigest()

    def error(self, reason: str, line: int | None = None) -> InvalidRequest:
        """An error that names the file and the line (by default the last one)."""
        return InvalidRequest(f"{self.path}, line {line or self.number}: {reason}.", param="input")

    def _decode(self, raw: bytes) -> str:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(
                f"byte {error.start + 1} of it is not UTF-8; save the file as UTF-8"
            ) from None
        return text.removeprefix(BOM) if self.number == 1 else text
