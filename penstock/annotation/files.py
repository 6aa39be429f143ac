"""What cannot be written ends in one sentence with its path. Knows no format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import InvalidRequest


@contextmanager
def writing(path: Path, hint: str = "") -> Iterator[None]:
    """Turn an OSError of the block into an InvalidRequest that names `path`."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidRequest(
            f"{path} cannot be written: {reason}.{hint}", param="output"
        ) from error
