"""Cells of an annotated table, read back from any format. Knows no column."""

from __future__ import annotations

import json
import math
import re

from penstock.annotation.records import Type

LONGEST = 480  # characters of a cell that are shown
#: Control characters, halves of surrogate pairs, and marks that turn the direction of writing.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def empty(cell: object) -> bool:
    """Nothing is written there; formats differ in how they say so."""
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def text(cell: object, most: int = LONGEST) -> str:
    """The cell as it is shown: cut with an ellipsis, harmless for a terminal."""
    if empty(cell):
        return ""
    whole = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=str)
    shown = whole if len(whole) <= most else whole[: most - 1].rstrip() + "…"
    return UNPRINTABLE.sub("�", shown)


def number(cell: object) -> float | None:
    """None for whatever is no finite number."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        value = float(cell)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def truth(cell: object) -> bool:
    """`true` in a text table, True in a typed one."""
    return cell.strip().lower() in {"true", "1"} if isinstance(cell, str) else cell is True


def parsed(cell: object) -> object:
    """The value of a cell that holds JSON, in a text table as its text; else the cell."""
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def typed(cell: object, kind: Type) -> object:
    """The value that was written as `kind`."""
    if empty(cell):
        return None
    match kind:
        case Type.NUMBER | Type.INTEGER:
            value = number(cell)
            return int(value) if value is not None and value.is_integer() else value
        case Type.TRUTH:
            return truth(cell)
        case Type.JSON:
            return parsed(cell)
        case Type.TEXT:
            return cell


def names(cell: object, *, several: bool) -> tuple[str, ...]:
    """The labels of a cell."""
    if empty(cell):
        return ()
    value = parsed(cell) if several else cell
    listed = value if isinstance(value, list | tuple) else [value]
    return tuple(text(name, 200) for name in listed)
