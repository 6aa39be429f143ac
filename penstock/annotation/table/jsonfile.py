"""JSON Lines read row by row, each with the text that it was read from. Nothing is skipped."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from penstock.annotation.records import Record, Row
from penstock.annotation.table.formats import Format
from penstock.annotation.table.lines import Lines


class JsonPass:
    """One pass. `columns` are those seen so far; `raw` of a record is its line."""

    def __init__(self, path: Path, format: Format) -> None:
        self._lines = Lines(path, format.compression)
        self._columns: dict[str, None] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._columns)

    @property
    def checksum(self) -> str:
        return self._lines.checksum

    def __iter__(self) -> Iterator[Record]:
        number = 0
        for text in self._lines:
            if not text.strip():
                continue
            row = self._object(text)
            self._columns.update(dict.fromkeys(row))
            yield Record(number, row, f"line {self._lines.number}", text)
            number += 1

    def _object(self, text: str) -> Row:
        try:
            row = json.loads(
                text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once
            )
        except json.JSONDecodeError as error:
            raise self._lines.error(f"not valid JSON ({error.msg})") from None
        except (ValueError, RecursionError) as error:
            raise self._lines.error(f"JSON that cannot be read ({error})") from None
        if not isinstance(row, dict):
            raise self._lines.error("not a JSON object")
        return row


def _once(pairs: list[tuple[str, object]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is too large a number")
    return value


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
