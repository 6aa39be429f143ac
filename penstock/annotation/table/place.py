"""Where an output goes: checked before anything runs, and there only when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from penstock.annotation import files
from penstock.annotation.records import Column, Source
from penstock.annotation.table.formats import Compression
from penstock.annotation.table.streams import packing
from penstock.errors import InvalidRequest


def check_place(path: Path, source: Source) -> None:
    """Raise InvalidRequest where `path` cannot be written, or is what is read."""
    folder = path.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidRequest(f"{folder} is no folder that can be written.", param="output")
    if path.is_dir():
        raise InvalidRequest(f"{path} is a folder.", param="output")
    read = getattr(source, "path", None)
    if isinstance(read, Path) and path.exists() and path.samefile(read):
        raise InvalidRequest(f"{path} is the input and the output.", param="output")


def check_columns(there: Sequence[str], added: Sequence[Column], where: str) -> None:
    """Raise InvalidRequest for an added column whose name is taken."""
    taken = set(there)
    for column in added:
        if column.name in taken:
            raise InvalidRequest(
                f"{where} has a column {column.name!r} already; "
                "give the new ones a prefix, such as 'new_'.",
                param="prefix",
            )
        taken.add(column.name)


@contextmanager
def replacing(path: Path, around: Compression = Compression.NONE) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends well, and else vanishes."""
    with files.replacing(path.resolve()) as file, packing(file, around) as packed:
        yield packed
