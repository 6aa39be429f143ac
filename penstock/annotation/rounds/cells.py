"""Cells of an annotated table as values again: CSV holds texts, the other formats types.

Knows the task's columns; reads no file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from penstock.annotation.records import Column, Kind, Type
from penstock.annotation.rounds.rows import cell_text
from penstock.annotation.task.fields import types_of
from penstock.annotation.task.task import Task

#: How a text is read; what raises ValueError or KeyError stays a text.
_READERS: Mapping[Type, Callable[[str], object]] = {
    Type.NUMBER: float,
    Type.INTEGER: int,
    Type.TRUTH: lambda text: {"true": True, "false": False}[text.lower()],
    Type.JSON: json.loads,
}


def typed(value: object, type: Type) -> object:
    """A cell as `type`; None where it is empty. What cannot be read as `type` stays as it is."""
    if not isinstance(value, str) or type not in _READERS:
        return None if value == "" else value
    try:
        return _READERS[type](value) if value else None
    except (ValueError, KeyError):
        return value


class Answers:
    """Reads the answers of a task in the rows of a table."""

    def __init__(self, task: Task) -> None:
        self.kind = task.kind
        self.several = task.several
        self.columns = tuple(_answer_columns(task))
        self.all = {column.name: column.type for column in task.columns}
        self._prefix = task.prefix

    def value(self, row: Mapping[str, object]) -> object | None:
        """A label, a list of labels, the fields by name, or a text; None where it failed."""
        if self.error(row):
            return None
        cells = {c.name: typed(row.get(c.name), c.type) for c in self.columns}
        if self.kind is Kind.FIELDS:
            return {name.removeprefix(self._prefix): cell for name, cell in cells.items()}
        return next(iter(cells.values()), None)

    def error(self, row: Mapping[str, object]) -> str:
        """Why the row failed; empty where it did not."""
        return cell_text(row.get(f"{self._prefix}error"))

    def probability(self, row: Mapping[str, object]) -> float | None:
        """Of the answer, where the table has it."""
        found = typed(row.get(f"{self._prefix}probability"), Type.NUMBER)
        return float(found) if isinstance(found, int | float) else None

    def review(self, row: Mapping[str, object]) -> bool:
        """Whether somebody is to look at it."""
        return typed(row.get(f"{self._prefix}needs_review"), Type.TRUTH) is True


def same(one: object, other: object) -> bool:
    """Equal, whatever format the two were read from; a list of labels is a set."""
    # Not by `==` alone, to which true is 1.
    return (type(one) is type(other) is str and one == other) or _plain(one) == _plain(other)


def _plain(value: object) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = sorted(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return cell_text(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _answer_columns(task: Task) -> list[Column]:
    if task.kind is Kind.FIELDS:
        names = list(types_of(task.fields or {}))
    else:
        names = ["label" if task.kind is Kind.LABELS else "answer"]
    return [column for column in task.columns if column.name.removeprefix(task.prefix) in names]
