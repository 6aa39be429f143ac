"""What nested cells have in common: the type of a column that is known by its values alone, or by
a JSON schema. Knows no library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from penstock.annotation.records import Column, Type
from penstock.annotation.table.cells import as_text, repaired


class Scalar(StrEnum):
    """A leaf. EMPTY is all None; JSON is a mixture that has no type but its JSON text."""

    EMPTY = "empty"
    TRUTH = "truth"
    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list whose members have one shape."""

    member: Shape


@dataclass(frozen=True, slots=True)
class Struct:
    """An object with the same names each time."""

    fields: tuple[tuple[str, Shape], ...]


Shape = Scalar | ListOf | Struct

_INT64 = 2**63
_SCALARS: Mapping[type, Shape] = {
    type(None): Scalar.EMPTY,
    bool: Scalar.TRUTH,
    int: Scalar.INTEGER,
    float: Scalar.NUMBER,
    str: Scalar.TEXT,
}
_TYPES: Mapping[Type, Shape] = {
    Type.TEXT: Scalar.TEXT,
    Type.NUMBER: Scalar.NUMBER,
    Type.INTEGER: Scalar.INTEGER,
    Type.TRUTH: Scalar.TRUTH,
}
_LEAVES = {"boolean": Scalar.TRUTH, "integer": Scalar.INTEGER, "number": Scalar.NUMBER}


def shape_of(value: object) -> Shape:
    """Of one plain cell."""
    if isinstance(value, list):
        member: Shape = Scalar.EMPTY
        for inner in value:
            member = merged(member, shape_of(inner))
        return Scalar.JSON if has_json(member) else ListOf(member)
    if isinstance(value, Mapping) and value:
        found = Struct(tuple((name, shape_of(inner)) for name, inner in value.items()))
        return Scalar.JSON if has_json(found) else found
    if type(value) is int and not -_INT64 <= value < _INT64:
        return Scalar.JSON
    return _SCALARS.get(type(value), Scalar.JSON)


def merged(one: Shape, other: Shape) -> Shape:
    """What holds both; JSON where nothing does."""
    if one == other or other is Scalar.EMPTY:
        return one
    if one is Scalar.EMPTY:
        return other
    if {one, other} == {Scalar.INTEGER, Scalar.NUMBER}:
        return Scalar.NUMBER
    if isinstance(one, ListOf) and isinstance(other, ListOf):
        member = merged(one.member, other.member)
        return Scalar.JSON if has_json(member) else ListOf(member)
    if isinstance(one, Struct) and isinstance(other, Struct):
        mine, its = dict(one.fields), dict(other.fields)
        if set(mine) == set(its):
            found = Struct(tuple((name, merged(mine[name], its[name])) for name in mine))
            return Scalar.JSON if has_json(found) else found
    return Scalar.JSON


def column_shape(column: Column, cells: Sequence[object] | None) -> Shape:
    """Of an added column: by its type, by its schema, or by all its plain cells, which may be
    there."""
    if column.type in _TYPES:
        return _TYPES[column.type]
    if column.schema is not None or cells is None:
        return shape_of_schema(column.schema)
    shape: Shape = Scalar.EMPTY
    for cell in cells:
        shape = merged(shape, shape_of(cell))
    return shape if isinstance(shape, ListOf | Struct) else Scalar.JSON


def fitted(value: object, shape: Shape) -> object:
    """A plain cell as a typed column can hold it; None where it cannot."""
    if value is None:
        return None
    if isinstance(shape, ListOf):
        return [fitted(one, shape.member) for one in value] if isinstance(value, list) else None
    if isinstance(shape, Struct):
        if not isinstance(value, Mapping):
            return None
        return {repaired(name): fitted(value.get(name), one) for name, one in shape.fields}
    if shape is Scalar.JSON:
        return repaired(json.dumps(value, ensure_ascii=False))
    return _leaf(value, shape)


def _leaf(value: object, shape: Shape) -> object:
    if shape is Scalar.TRUTH:
        return value if isinstance(value, bool) else None
    if shape is Scalar.INTEGER:
        return value if isinstance(value, int) and -_INT64 <= value < _INT64 else None
    if shape is Scalar.NUMBER:
        return float(value) if isinstance(value, int | float) else None
    return repaired(as_text(value))


def has_json(shape: Shape) -> bool:
    """It is, or has within, a mixture."""
    if isinstance(shape, Struct):
        return any(has_json(inner) for _, inner in shape.fields)
    return has_json(shape.member) if isinstance(shape, ListOf) else shape is Scalar.JSON


def shape_of_schema(schema: Mapping[str, object] | None) -> Shape:
    """Of all values that a JSON schema allows; JSON where it leaves that open."""
    if schema is None:
        return Scalar.JSON
    kind = schema.get("type")
    if isinstance(kind, list):
        named = [one for one in kind if one != "null"]
        kind = named[0] if len(named) == 1 else None
    if kind == "array" and isinstance(items := schema.get("items"), Mapping):
        member = shape_of_schema(items)
        return Scalar.JSON if has_json(member) else ListOf(member)
    if kind == "object":
        return _struct(schema)
    if kind == "string":
        return Scalar.TEXT
    values = schema.get("enum")
    if kind is None and isinstance(values, list) and all(isinstance(one, str) for one in values):
        return Scalar.TEXT
    return _LEAVES.get(str(kind), Scalar.JSON)


def _struct(schema: Mapping[str, object]) -> Shape:
    """Only where no other name may come: a struct would lose it without a word."""
    fields = schema.get("properties")
    if (
        not isinstance(fields, Mapping)
        or not fields
        or schema.get("additionalProperties") is not False
    ):
        return Scalar.JSON
    found = Struct(tuple((str(name), shape_of_schema(one)) for name, one in fields.items()))
    return Scalar.JSON if has_json(found) else found
