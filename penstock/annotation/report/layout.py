"""Which column of an annotated table means what, and a row read by it. Knows no rows together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from penstock.annotation.records import Kind, Record, Row, Type
from penstock.annotation.report.cells import empty, names, number, parsed, text, truth, typed
from penstock.annotation.trust.right import missing, right
from penstock.errors import InvalidRequest

if TYPE_CHECKING:
    from penstock.annotation.task.task import Task

VALUES = {"label": Kind.LABELS, "answer": Kind.TEXT}
ROLES = (
    "probability",
    "entropy",
    "margin",
    "probabilities",
    "agreement",
    "needs_review",
    "error",
    "prompt_tokens",
    "completion_tokens",
)
VOTE = "label_"
MOST_VOTERS = 8
MOST_SHOWN = 6  # columns of the input beside a row


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the annotated table. `right` is None where no gold value or no answer is."""

    number: int
    place: str
    row: Row
    done: bool
    error: str
    labels: tuple[str, ...] | None
    probability: float | None
    agreement: float | None
    review: bool
    right: bool | None
    tokens: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of columns. `value` is None for fields; `roles` maps `probability` and the like to the
    column, `votes` the voter to hers; `shown` are those that say what a row is about."""

    kind: Kind
    value: str | None = None
    several: bool = False
    labels: tuple[str, ...] = ()
    fields: Mapping[str, Type] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    votes: Mapping[str, str] = field(default_factory=dict)
    gold: str | None = None
    shown: tuple[str, ...] = ()

    def check(self, columns: Sequence[str]) -> None:
        """Raise InvalidRequest for a table that lacks what it is read by."""
        if self.gold is not None and self.gold not in columns:
            raise InvalidRequest(
                f"There is no gold column {self.gold!r}; there are {', '.join(columns)}.",
                param="gold",
            )
        needed = self.fields if self.value is None else (self.value,)
        for column in needed:
            if column not in columns:
                raise InvalidRequest(
                    f"This is not the table of that task: it has no column {column!r}.",
                    param="output",
                )

    def line(self, record: Record) -> Line:
        row = record.row
        error = text(self._cell(row, "error"))
        value = None if error else self._value(row)
        done = value is not None or not empty(self._cell(row, "needs_review"))
        gold = row.get(self.gold) if self.gold is not None else None
        judged = value is not None and not missing(gold)
        return Line(
            number=record.number,
            place=record.place,
            row=row,
            done=done and not error,
            error=error,
            labels=self._labels(row) if value is not None else None,
            probability=number(self._cell(row, "probability")),
            agreement=number(self._cell(row, "agreement")),
            review=truth(self._cell(row, "needs_review")),
            right=right(value, gold, self.kind) if judged else None,
            tokens=(self._count(row, "prompt_tokens"), self._count(row, "completion_tokens")),
        )

    def answer(self, row: Row) -> str:
        """What was answered, as it is shown."""
        if self.value is None:
            filled = {name: row.get(name) for name in self.fields if not empty(row.get(name))}
            return text(filled) if filled else ""
        if self.kind is Kind.LABELS:
            return ", ".join(self._labels(row)) or ("none of the labels" if self.several else "")
        return text(row.get(self.value))

    def field(self, row: Row, name: str) -> object:
        """The value of a field, of its type."""
        return typed(row.get(name), self.fields[name])

    def _value(self, row: Row) -> object | None:
        if self.value is None:
            fields = {name: self.field(row, name) for name in self.fields}
            return fields if any(value is not None for value in fields.values()) else None
        cell = row.get(self.value)
        if empty(cell):
            return None
        return list(self._labels(row)) if self.several else cell

    def _labels(self, row: Row) -> tuple[str, ...]:
        if self.kind is not Kind.LABELS or self.value is None:
            return ()
        return names(row.get(self.value), several=self.several)

    def _cell(self, row: Row, role: str) -> object:
        column = self.roles.get(role)
        return None if column is None else row.get(column)

    def _count(self, row: Row, role: str) -> int:
        return int(number(self._cell(row, role)) or 0)


def of_task(task: Task, gold: str | None = None) -> Layout:
    """As the task says; `gold` counts more than its column."""
    from penstock.annotation.task.parsing import template_of

    added = {column.name: column.type for column in task.columns}
    shown = template_of(task, task.template).columns
    layout = _layout(added, task.prefix, gold or task.gold, shown)
    votes = {**layout.votes, **{column: column for column in task.votes.columns}}
    return replace(
        layout,
        several=task.several,
        labels=task.labels or (),
        votes=dict(list(votes.items())[:MOST_VOTERS]),
    )


def guessed(columns: Sequence[str], gold: str | None, rows: Iterable[Row]) -> Layout:
    """By the names that an annotation adds, where nothing says which task it was. `rows`: some."""
    value = next((name for name in VALUES if name in columns), None)
    if value is None and "needs_review" not in columns:
        raise InvalidRequest(
            "This is no annotated table: it has no column label, answer or needs_review.",
            param="output",
        )
    if value is None:
        raise InvalidRequest(
            "Nothing says which columns are the answer's: give the task with --task.", param="task"
        )
    votes = [name for name in columns if name.startswith(VOTE)]
    added = {
        name: Type.TEXT for name in (value, *votes, *(name for name in ROLES if name in columns))
    }
    asked = tuple(name for name in columns if name not in added and name != gold)
    labels = [parsed(row.get(value)) for row in rows if not empty(row.get(value))]
    several = bool(labels) and all(isinstance(label, list) for label in labels)
    return replace(_layout(added, "", gold, asked), several=several and value == "label")


def _layout(
    added: Mapping[str, Type],
    prefix: str,
    gold: str | None,
    shown: tuple[str, ...],
) -> Layout:
    bare = {name.removeprefix(prefix): name for name in added}
    value = next((name for name in VALUES if name in bare), None)
    votes = {
        name.removeprefix(VOTE): column
        for name, column in bare.items()
        if name.startswith(VOTE) and value is not None
    }
    roles = {name: column for name, column in bare.items() if name in ROLES}
    rest = [name for name in added if name not in roles.values()]
    return Layout(
        kind=Kind.FIELDS if value is None else VALUES[value],
        value=None if value is None else bare[value],
        fields={name: added[name] for name in rest} if value is None else {},
        roles=roles,
        votes=votes,
        gold=gold,
        shown=shown[:MOST_SHOWN],
    )
