"""Which weights a model has, as a short text that differs where they do. Torch-free."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

#: Bytes that are read of a large file at its beginning, in its middle and at its end: weights that
#: were trained on have the size they had.
SAMPLE: Final = 1 << 16


def revision_of(place: str, commit: str | None) -> str:
    """The commit of a hub model; of a folder, a digest of its files' names, sizes, times and
    samples of what is in them."""
    folder = Path(place)
    if not folder.is_dir():
        return commit or ""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        stat = path.stat()
        digest.update(repr((path.name, stat.st_size, stat.st_mtime_ns)).encode())
        digest.update(_sample(path, stat.st_size))
    return digest.hexdigest()


def _sample(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        if size <= 3 * SAMPLE:
            return file.read()
        pieces = []
        for start in (0, size // 2, size - SAMPLE):
            file.seek(start)
            pieces.append(file.read(SAMPLE))
    return b"".join(pieces)
