"""The bytes of a file, decompressed and hashed as they pass. Knows no lines and no format.

The hash is that of the file as it lies there, so that `sha256sum` says the same.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from penstock.annotation.table.extras import needed
from penstock.annotation.table.formats import Compression
from penstock.errors import InvalidRequest

CHUNK = 1 << 20  # bytes
ZSTD_CHUNK = 1 << 12  # compressed bytes: few, since each may stand for very many

#: What a file of another kind begins with, and what it is then.
_FOREIGN = {
    b"\x1f\x8b": "is compressed by gzip; let its name end in .gz",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; let its name end in .zst",
    b"PAR1": "is a Parquet file; let its name end in .parquet",
    b"PK\x03\x04": "is a ZIP archive or a spreadsheet; export it as CSV",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet; export it as CSV",
    b"\xff\xfe": "is encoded in UTF-16; save it as UTF-8",
    b"\xfe\xff": "is encoded in UTF-16; save it as UTF-8",
}


class Hashed(io.RawIOBase):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(len(buffer))
        self._hash.update(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    @property
    def checksum(self) -> str:
        return self._hash.hexdigest()


class Unpacked(io.RawIOBase):
    """zstd, decompressed. Unlike the package's own reader it raises where a frame is cut off."""

    def __init__(self, file: io.BufferedIOBase, zstandard: Any) -> None:
        self._file = file
        self._package = zstandard
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False  #: a frame, and not at its end
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and (packed := self._file.read(ZSTD_CHUNK)):
            self._ready = memoryview(self._unpack(packed))
        if not self._ready and self._begun:
            raise EOFError("it ends in the middle")
        taken = self._ready[: len(buffer)]
        buffer[: len(taken)] = taken
        self._ready = self._ready[len(taken) :]
        return len(taken)

    def _unpack(self, packed: bytes) -> bytes:
        pieces = []
        try:
            while packed:
                pieces.append(self._frame.decompress(packed))
                self._begun, packed = not self._frame.eof, self._frame.unused_data
                if self._frame.eof:
                    self._frame = self._package.ZstdDecompressor().decompressobj()
        except self._package.ZstdError as error:
            raise gzip.BadGzipFile(str(error)) from None
        return b"".join(pieces)


@contextmanager
def reading(path: Path, around: Compression) -> Iterator[tuple[io.BufferedIOBase, Hashed]]:
    """The decompressed bytes, and the file below them. Raises InvalidRequest with the path for
    what cannot be read, is damaged, or is of another kind."""
    try:
        with path.open("rb", buffering=0) as file:
            below = Hashed(file)
            with closing(_opened(below, around, path)) as stream:
                yield stream, below
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidRequest(f"{path} is damaged: {_reason(error)}.", param="input") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidRequest(f"{path} cannot be read: {reason}.", param="input") from error


def _opened(below: Hashed, around: Compression, path: Path) -> io.BufferedIOBase:
    stream: io.RawIOBase | gzip.GzipFile = below
    if around is Compression.GZIP:
        stream = gzip.GzipFile(fileobj=io.BufferedReader(below, CHUNK), mode="rb")
    elif around is Compression.ZSTD:
        stream = Unpacked(
            io.BufferedReader(below, CHUNK), needed("zstandard", f"Reading {path.name}")
        )
    found = io.BufferedReader(stream, CHUNK)
    start = found.peek(4)[:4]
    for mark, sentence in _FOREIGN.items():
        if start.startswith(mark):
            raise InvalidRequest(f"{path} {sentence}.", param="input")
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "it ends in the middle"
    text = str(error).rstrip(".")
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


@contextmanager
def packing(file: IO[bytes], around: Compression) -> Iterator[IO[bytes]]:
    """What is written goes into `file`, compressed; equal tables give equal files."""
    if around is Compression.NONE:
        yield file
        return
    if around is Compression.GZIP:
        packed: Any = gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0)
    else:
        packed = (
            needed("zstandard", "Writing .zst").ZstdCompressor().stream_writer(file, closefd=False)
        )
    with packed:
        yield packed
