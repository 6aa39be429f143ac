"""The files that review tools read and write: JSON lists streamed out, small files read whole.

Knows no tool.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from penstock.annotation.files import unfinished, writing
from penstock.errors import InvalidRequest


def fresh(*paths: Path, param: str = "file") -> None:
    """Raise InvalidRequest for the first that exists: nothing is ever overwritten."""
    for path in paths:
        if path.exists():
            raise InvalidRequest(
                f"{path} exists already, and nothing is overwritten; name another file.",
                param=param,
            )


@contextmanager
def creating(path: Path, encoding: str = "utf-8") -> Iterator[IO[str]]:
    """A new file, there when the block ends well and else not at all."""
    part = unfinished(path)
    with writing(path):
        try:
            with part.open("w", encoding=encoding, newline="") as file:
                yield file
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def write_list(path: Path, items: Iterable[Mapping[str, object]]) -> None:
    """Write a JSON list item by item."""
    with creating(path) as file:
        before = "[\n"
        for item in items:
            file.write(before + json.dumps(item, ensure_ascii=False))
            before = ",\n"
        file.write("\n]\n")


def write_text(path: Path, text: str) -> None:
    """Write a small file."""
    with creating(path) as file:
        file.write(text)


def read_objects(path: Path) -> Iterator[Mapping[str, object]]:
    """The objects of a JSON list, or of JSON Lines. Raises InvalidRequest for another file."""
    text = read_text(path)
    try:
        found = json.loads(text)
        items = found if isinstance(found, list) else [found]
    except ValueError:
        items = _lines(path, text)
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise InvalidRequest(f"{path}, item {number}: not a JSON object.", param="file")
        yield item


def read_text(path: Path) -> str:
    """A file as UTF-8, without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path} is not UTF-8; export it as UTF-8.", param="file") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidRequest(f"{path} cannot be read: {reason}.", param="file") from None


def _lines(path: Path, text: str) -> list[object]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise InvalidRequest(
                f"{path}, line {number}: not valid JSON ({error}).", param="file"
            ) from None
    return found
