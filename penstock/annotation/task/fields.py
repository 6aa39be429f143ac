"""Typed fields: a JSON schema as columns, as a response format, and an answer read by it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import ValidationError

from penstock.annotation.records import Type
from penstock.errors import InvalidRequest
from penstock.schemas.formats import JsonSchema

_TYPES = {
    "string": Type.TEXT,
    "number": Type.NUMBER,
    "integer": Type.INTEGER,
    "boolean": Type.TRUTH,
}
_CALLED = {
    Type.TEXT: "a text",
    Type.NUMBER: "a number",
    Type.INTEGER: "an integer",
    Type.TRUTH: "true or false",
}
MOST_CELLS = 256  #: properties


def check_schema(schema: Mapping[str, object]) -> None:
    """Raises InvalidRequest for what is no JSON schema of an object with properties."""
    if schema.get("type") != "object" or not _properties(schema):
        raise InvalidRequest(
            "`fields` has to be a JSON schema of type `object` with `properties`.", param="fields"
        )
    for name, inner in _properties(schema).items():
        if not isinstance(inner, Mapping) or not name.strip():
            raise InvalidRequest(
                f"`fields`: the property {name!r} needs a name and a JSON schema, such as "
                '{type = "string"}.',
                param=f"fields.properties.{name}",
            )
    if len(_properties(schema)) > MOST_CELLS:
        raise InvalidRequest(f"`fields` has more than {MOST_CELLS} properties.", param="fields")
    try:
        JsonSchema.model_validate({"schema": dict(schema)})
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"`fields`: {reason}.", param="fields") from None


def types_of(schema: Mapping[str, object]) -> dict[str, Type]:
    """The type of each property's cells, in the schema's order."""
    return {name: _type(inner, schema) for name, inner in _properties(schema).items()}


def response_format(schema: Mapping[str, object]) -> dict[str, object]:
    """Every property is asked for, and no other, unless the schema says."""
    asked = {"required": list(_properties(schema)), "additionalProperties": False, **schema}
    return {"type": "json_schema", "json_schema": {"schema": asked}}


def read_fields(text: str, schema: Mapping[str, object]) -> dict[str, object]:
    """The cells by property. Raises ValueError, in a sentence, for what is no such object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is no complete JSON; `max_tokens` may be too small") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return {name: _cell(name, found.get(name), type_) for name, type_ in types_of(schema).items()}


def _cell(name: str, value: object, type_: Type) -> object:
    if value is None or type_ is Type.JSON:
        return value
    if _fits(value, type_):
        return int(value) if type_ is Type.INTEGER and isinstance(value, float) else value
    raise ValueError(f"its {name!r} is not {_CALLED[type_]}")


def _fits(value: object, type_: Type) -> bool:
    if type_ is Type.TEXT:
        return isinstance(value, str)
    if isinstance(value, bool) or type_ is Type.TRUTH:
        return isinstance(value, bool) and type_ is Type.TRUTH
    if type_ is Type.INTEGER:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, int | float)


def _properties(schema: Mapping[str, object]) -> Mapping[str, object]:
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def _type(inner: object, schema: Mapping[str, object]) -> Type:
    """Of a property: by its `type`, by the values of its `enum`, or by what it refers to."""
    if not isinstance(inner, Mapping):
        return Type.JSON
    reference = inner.get("$ref")
    if isinstance(reference, str) and "$ref" not in (target := _referred(reference, schema)):
        return _type(target, schema)
    said = inner.get("type")
    if isinstance(said, list):
        kinds = [kind for kind in said if kind != "null"]
        said = kinds[0] if len(kinds) == 1 else None
    if isinstance(said, str):
        return _TYPES.get(said, Type.JSON)
    values = inner.get("enum", [inner["const"]] if "const" in inner else None)
    texts = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return Type.TEXT if texts else Type.JSON


def _referred(reference: str, schema: Mapping[str, object]) -> Mapping[str, object]:
    """What `#/$defs/name` points at; nothing where it does not."""
    found: object = schema
    for step in reference.removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
