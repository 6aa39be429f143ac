"""The filters of a template: those of Jinja that a prompt needs, each bounded by the work of its
rendering. None yields lazily, and none makes much of little."""

from __future__ import annotations

import json
from collections.abc import (
    Callable,
    ItemsView,
    KeysView,
    Mapping,
    MappingView,
    Sequence,
    ValuesView,
)
from datetime import date, time
from decimal import Decimal
from numbers import Number
from uuid import UUID

from jinja2 import Undefined, pass_context
from jinja2.runtime import Context

from penstock.errors import InvalidRequest

MOST_WORK = 10_000_000  #: characters handled, of one rendering
STEP = 20  #: characters, in whose time a part of a loop's body is done once
WORK = "the work"  #: where a context keeps it: no name that a template could say


class Work:
    """What a rendering may still do."""

    def __init__(self) -> None:
        self._left = MOST_WORK

    def take(self, amount: int) -> None:
        """Raises InvalidRequest where it is too much."""
        self._left -= amount
        if self._left < 0:
            raise InvalidRequest(
                "The template does too much work: its loops are too long, or its texts.",
                param="template",
            )


def size(value: object) -> int:
    """Characters or items."""
    return len(value) if isinstance(value, Sequence | Mapping | MappingView) else 1


def cell_text(value: object) -> str:
    """A cell as text: null is nothing, and what is no text is JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, Undefined):
        return str(value)  # which raises, and names it
    if isinstance(value, date | time | Decimal | UUID):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    """Raises TypeError for what is no cell: a method, a loop."""
    if isinstance(value, date | time | Decimal | UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    as_list = getattr(value, "tolist", None)  # numpy's scalars and arrays
    if as_list is None:
        raise TypeError(f"{type(value).__name__} is nothing that a prompt could have")
    return as_list()


def items(value: object) -> Sequence[object]:
    """What a loop over `value` gives. Raises TypeError."""
    if isinstance(value, Mapping | KeysView | ValuesView | ItemsView):
        return list(value)
    if isinstance(value, Sequence):
        return value
    if isinstance(value, Undefined):
        str(value)  # raises
    raise TypeError(f"{cell_text(value)!r} is no list")


def _join(value: object, separator: str = "") -> str:
    parts = [cell_text(item) for item in items(value)]
    _bounded(sum(map(len, parts)) + len(parts) * len(separator))
    return separator.join(parts)


def _replace(value: object, old: str, new: str) -> str:
    text = cell_text(value)
    _bounded(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


def _bounded(length: int) -> None:
    if length > MOST_WORK:
        Work().take(length)


def _truncate(value: object, length: int = 255, end: str = "…") -> str:
    """At most `length` characters, `end` included."""
    text = cell_text(value)
    if len(text) <= length:
        return text
    return text[: max(0, length - len(end))] + end[: max(0, length)]


def _default(value: object, fallback: object = "", boolean: bool = False) -> object:
    missing = isinstance(value, Undefined) or (boolean and not value)
    return fallback if missing else value


def _pairs(value: object) -> list[tuple[object, object]]:
    if isinstance(value, Mapping):
        return list(value.items())
    raise TypeError(f"{cell_text(value)!r} is no object")


def _number(value: object) -> float:
    return float(value if isinstance(value, int | float) else cell_text(value))


def _round(value: object, digits: int = 0) -> float:
    return round(_number(value), digits)


def _unique(value: object) -> list[object]:
    return list({cell_text(item): item for item in reversed(items(value))}.values())[::-1]


def _order(value: object) -> tuple[bool, float, str]:
    """Numbers by size, before the rest by its text."""
    number = float(value) if isinstance(value, int | float) else None
    return number is None, number or 0.0, "" if number is not None else cell_text(value)


def _length(value: object) -> int:
    if isinstance(value, str | Number):
        return len(cell_text(value))
    return len(items(value))


_Filter = Callable[..., object]

_FILTERS: dict[str, _Filter] = {
    "capitalize": lambda value: cell_text(value).capitalize(),
    "count": _length,
    "d": _default,
    "default": _default,
    "first": lambda value: next(iter(items(value)), ""),
    "float": _number,
    "int": lambda value: int(_number(value)),
    "items": _pairs,
    "join": _join,
    "last": lambda value: next(reversed(items(value)), ""),
    "length": _length,
    "list": lambda value: list(items(value)),
    "lower": lambda value: cell_text(value).lower(),
    "replace": _replace,
    "reverse": lambda value: value[::-1] if isinstance(value, str) else list(items(value))[::-1],
    "round": _round,
    "sort": lambda value: sorted(items(value), key=_order),
    "string": cell_text,
    "title": lambda value: cell_text(value).title(),
    "tojson": lambda value: json.dumps(value, ensure_ascii=False, default=_plain),
    "trim": lambda value: cell_text(value).strip(),
    "truncate": _truncate,
    "unique": _unique,
    "upper": lambda value: cell_text(value).upper(),
    "wordcount": lambda value: len(cell_text(value).split()),
}


@pass_context
def _steps(context: Context, value: object, nodes: int) -> object:
    """What a loop goes over; each of its steps costs what its body has."""
    found = items(value)
    context[WORK].take((len(found) + 1) * nodes * STEP)
    return found


@pass_context
def _weighed(context: Context, value: object) -> object:
    """One side of a comparison."""
    context[WORK].take(size(value))
    return value


def _metered(function: _Filter) -> _Filter:
    @pass_context
    def call(context: Context, value: object, *args: object, **named: object) -> object:
        context[WORK].take(size(value) + sum(map(size, args)))
        result = function(value, *args, **named)
        context[WORK].take(size(result))
        return result

    return call


STEPS, WEIGHED = " steps", " weighed"


def all_filters() -> dict[str, _Filter]:
    """By name; those with a space are for what a template is turned into."""
    metered = {name: _metered(function) for name, function in _FILTERS.items()}
    return {**metered, STEPS: _steps, WEIGHED: _weighed}
