"""The columns that an annotation adds, and what a row's verdict puts into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from penstock.annotation.records import Column, Kind, Type, Verdict

if TYPE_CHECKING:
    from penstock.annotation.task.task import Task


def columns(task: Task) -> tuple[Column, ...]:
    """In the order in which they are written. `Task.columns` keeps them."""
    return tuple(
        Column(task.prefix + name, type_, _schema(task, name) if type_ is Type.JSON else None)
        for name, type_ in _columns(task)
    )


def cells(task: Task, verdict: Verdict) -> dict[str, object]:
    """One row's cells by the names of `columns`."""
    found = {task.prefix + name: cell for name, cell in _cells(task, verdict)}
    return {column.name: found.get(column.name) for column in task.columns}


def _columns(task: Task) -> Iterator[tuple[str, Type]]:
    voting = len(task.members) + len(task.votes.columns) > 1
    if task.kind is Kind.LABELS:
        label = Type.JSON if task.several else Type.TEXT
        yield "label", label
        yield from ((name, Type.NUMBER) for name in ("probability", "entropy", "margin"))
        if task.all_probabilities:
            yield "probabilities", Type.JSON
        if voting:
            yield "agreement", Type.NUMBER
            yield from ((f"label_{member.name}", label) for member in task.members)
    elif task.kind is Kind.FIELDS:
        yield from task.types.items()
        if voting:
            yield "agreement", Type.NUMBER
    else:
        yield "answer", Type.TEXT
    yield "needs_review", Type.TRUTH
    yield "error", Type.TEXT
    yield "prompt_tokens", Type.INTEGER
    yield "completion_tokens", Type.INTEGER


def _schema(task: Task, name: str) -> Mapping[str, object] | None:
    """Of the cells of a JSON column, for formats that have lists and structs."""
    if task.kind is Kind.FIELDS:
        properties = (task.fields or {}).get("properties")
        found = properties.get(name) if isinstance(properties, Mapping) else None
        return found if isinstance(found, Mapping) else None
    if name == "probabilities":
        shares = {label: {"type": "number"} for label in task.labels or ()}
        return {"type": "object", "properties": shares, "additionalProperties": False}
    return {"type": "array", "items": {"type": "string"}}


def _cells(task: Task, verdict: Verdict) -> Iterator[tuple[str, object]]:
    value = verdict.value
    if task.kind is Kind.FIELDS:
        found = value if isinstance(value, dict) else {}
        yield from ((name, found.get(name)) for name in task.types)
    elif task.kind is Kind.TEXT:
        yield "answer", value
    else:
        yield "label", value
        yield "probability", verdict.probability
        yield "entropy", verdict.entropy
        yield "margin", verdict.margin
        shares = verdict.probabilities
        yield "probabilities", None if shares is None else dict(shares)
        for member, reading in zip(task.members, verdict.votes, strict=False):
            yield f"label_{member.name}", reading.value
    yield "agreement", verdict.agreement
    yield "needs_review", verdict.needs_review
    yield "error", verdict.error
    yield "prompt_tokens", verdict.prompt_tokens
    yield "completion_tokens", verdict.completion_tokens
