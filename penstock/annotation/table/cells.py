"""What a cell of any library is in plain Python, and how it is written as text.

Plain is what JSON has: None, truth, numbers, text, lists and objects. Missing is None, whatever it
is called elsewhere.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time

from penstock.annotation.records import Column, Type

_PLAIN = (str, int, bool, type(None))
_MISSING = frozenset({"NAType", "NaTType"})  #: pandas' own; it need not be there


def plain(value: object) -> object:
    """Never raises: what has no JSON becomes its text, bytes their base64."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        return _number(float(value))
    if isinstance(value, str):  # a subclass: an enumeration, a scalar of numpy
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return _foreign(value)


def _number(number: float) -> object:
    if math.isnan(number):
        return None
    return number if math.isfinite(number) else str(number)


def _foreign(value: object) -> object:
    kind = type(value)
    if kind.__name__ in _MISSING:
        return None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, set | frozenset):  # in another process they have another order
        return sorted((plain(inner) for inner in value), key=str)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    # Of a date in nanoseconds numpy would give a bare number.
    if kind.__module__ == "numpy" and hasattr(value, "tolist") and "time" not in kind.__name__:
        return plain(value.tolist())
    return str(value)


def as_text(value: object) -> str:
    """A plain cell in a format that has text alone."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def encoded(text: str) -> bytes:
    """UTF-8. What it cannot hold, a lone surrogate, becomes its JSON escape."""
    return text.encode("utf-8", "backslashreplace")


def repaired(text: str) -> str:
    """The same for libraries that cannot hold one."""
    return text if text.isascii() else encoded(text).decode()


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, float) and value.is_integer() else None


def of_type(column: Column, value: object) -> object:
    """A cell of an added column, plain, as its type says; None where it is no such thing."""
    value = plain(value)
    if value is None:
        return None
    match column.type:
        case Type.TEXT:
            return as_text(value)
        case Type.NUMBER:
            return float(value) if isinstance(value, int | float) else None
        case Type.INTEGER:
            return value if isinstance(value, int) else _whole(value)
        case Type.TRUTH:
            return value if isinstance(value, bool) else None
        case Type.JSON:
            return value
