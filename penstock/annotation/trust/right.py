"""Whether an answer is the gold one. Knows no table: a gold cell is a text, or typed."""

from __future__ import annotations

import json
from collections.abc import Mapping

from penstock.annotation.records import Kind


def right(value: object, gold: object, kind: Kind) -> bool:
    """A label: equal; several: the same set; fields: equal in all that `gold` names; a text: equal
    but for space around it."""
    if value is None:
        return False
    if kind is Kind.FIELDS:
        wanted = object_of(gold)
        return isinstance(value, Mapping) and wanted is not None and _agree(value, wanted)
    if isinstance(value, list | tuple):
        return {str(label) for label in value} == labels_of(gold)
    return str(value).strip() == str(gold).strip()


def labels_of(gold: object) -> frozenset[str]:
    """The labels that a gold cell of a several-of task names: a list, a JSON list, or labels with
    commas between them."""
    if isinstance(gold, str):
        text = gold.strip()
        listed = _json(text)
        gold = listed if isinstance(listed, list) else text.split(",")
    if isinstance(gold, list | tuple | set | frozenset):
        return frozenset(text for label in gold if (text := str(label).strip()))
    return frozenset() if gold is None else frozenset({str(gold).strip()})


def missing(gold: object) -> bool:
    """The row has no gold answer: an empty cell."""
    return gold is None or gold != gold or (isinstance(gold, str) and not gold.strip())


def _agree(value: Mapping[object, object], wanted: Mapping[str, object]) -> bool:
    return all(name in value and same(value[name], wish) for name, wish in wanted.items())


def same(one: object, other: object) -> bool:
    """Equal as JSON is: 1 is 1.0 and is not true."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return one == other


def object_of(gold: object) -> Mapping[str, object] | None:
    """A cell with fields, as it is or as JSON; None for anything else."""
    found = _json(gold) if isinstance(gold, str) else gold
    return found if isinstance(found, Mapping) else None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
