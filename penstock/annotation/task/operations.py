"""What an expression can do with cells. Text from a CSV file is a number or a truth value where it
meets one; an empty cell equals nothing but an empty one. Nothing here makes much of little."""

from __future__ import annotations

import ast
import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

MOST_BITS = 4_096  #: of an integer


def empty(value: object) -> bool:
    """A cell with nothing in it."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def truth(value: object) -> bool:
    """Text as a CSV file has it: `true`, `false`, a number."""
    if empty(value):
        return False
    if isinstance(value, str):
        return value.strip().lower() not in ("false", "0", "0.0")
    return bool(value)


def number(value: object) -> float | None:
    """None for an empty cell. Raises ValueError for what is no number."""
    if empty(value):
        return None
    if isinstance(value, int | float):
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise ValueError("a number is too large")
        return value
    found = _parsed(value)
    if found is None:
        raise ValueError(f"{str(value)[:80]!r} is no number")
    return found


def as_told(value: object) -> object:
    """A result: text that stands for a truth value or a number is one; an empty one is None."""
    if empty(value):
        return None
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    found = _parsed(value)
    return value if found is None else found


def text(value: object) -> str:
    """As a CSV file has it."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False, default=str)


def negative(value: object) -> float | None:
    found = number(value)
    return None if found is None else -found


def _parsed(value: object) -> float | None:
    try:
        return float(str(value)[:400])
    except ValueError:
        return None


def _computed(compute: Callable[[float, float], float]) -> Callable[[object, object], float | None]:
    def of(left: object, right: object) -> float | None:
        one, other = number(left), number(right)
        return None if one is None or other is None else compute(one, other)

    return of


def equal(left: object, right: object) -> bool:
    if empty(left) or empty(right):
        return empty(left) and empty(right)
    if isinstance(left, str) != isinstance(right, str):
        word, other = (left, right) if isinstance(left, str) else (right, left)
        if isinstance(other, bool):
            return str(word).strip().lower() == str(other).lower()
        if isinstance(other, int | float):
            return _parsed(word) == other
        return text(word) == text(other)
    return left == right


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[object, object], bool]:
    def of(left: object, right: object) -> bool:
        if empty(left) or empty(right):
            return False
        if isinstance(left, str) and isinstance(right, str):
            one, other = _parsed(left), _parsed(right)
            return compare(left, right) if one is None or other is None else compare(one, other)
        return compare(number(left), number(right))

    return of


def within(left: object, right: object) -> bool:
    """In a list, or in a text: a JSON list in a cell of a CSV file is a list."""
    items = listed(right)
    return contains(right, left) if items is None else any(equal(left, each) for each in items)


def contains(value: object, part: object) -> bool:
    """A text has another in it, whatever their case."""
    return not empty(value) and text(part).lower() in text(value).lower()


def listed(value: object) -> Sequence[object] | None:
    """The items of a list, or of one as JSON; None for what is no list."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list | tuple) else None


def _length(value: object) -> int:
    """Of a list its items, of anything else the characters."""
    items = listed(value)
    return len(text(value)) if items is None else len(items)


def _rounded(value: object, digits: object = 0) -> float | None:
    found, places = number(value), number(digits)
    return None if found is None else round(found, max(-20, min(20, int(places or 0))))


def _absolute(value: object) -> float | None:
    found = number(value)
    return None if found is None else abs(found)


ARITHMETIC: Final[Mapping[type[ast.AST], Callable[[object, object], object]]] = {
    ast.Add: _computed(operator.add),
    ast.Sub: _computed(operator.sub),
    ast.Mult: _computed(operator.mul),
    ast.Div: _computed(lambda one, other: one / other if other else math.nan),
    ast.Mod: _computed(lambda one, other: one % other if other else math.nan),
}
COMPARISONS: Final[Mapping[type[ast.AST], Callable[[object, object], bool]]] = {
    ast.Eq: equal,
    ast.NotEq: lambda left, right: not equal(left, right),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: within,
    ast.NotIn: lambda left, right: not within(left, right),
    ast.Is: equal,
    ast.IsNot: lambda left, right: not equal(left, right),
}
#: By name: the fewest and the most values, and what it does.
FUNCTIONS: Final[Mapping[str, tuple[int, int, Callable[..., object]]]] = {
    "abs": (1, 1, _absolute),
    "contains": (2, 2, contains),
    "empty": (1, 1, empty),
    "endswith": (2, 2, lambda value, part: text(value).endswith(text(part))),
    "len": (1, 1, _length),
    "lower": (1, 1, lambda value: text(value).lower()),
    "number": (1, 1, number),
    "round": (1, 2, _rounded),
    "startswith": (2, 2, lambda value, part: text(value).startswith(text(part))),
    "strip": (1, 1, lambda value: text(value).strip()),
    "upper": (1, 1, lambda value: text(value).upper()),
}
