"""`response_format`: what an answer has to be, and how large the description of it may be."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

MAX_SCHEMA_BYTES = 65_536
MAX_SCHEMA_DEPTH = 32
MAX_REGEX_CHARS = 4_096

FormatType = Literal["text", "json_object", "json_schema", "regex"]


class JsonSchema(BaseModel):
    """A JSON schema as OpenAI wraps it. It is always followed strictly; name and description are
    the client's own."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_: dict[str, object] = Field(alias="schema", description="The JSON schema itself.")
    name: str | None = Field(default=None, max_length=64)
    description: str | None = Field(default=None, max_length=1_024)
    strict: bool | None = None

    @field_validator("schema_")
    @classmethod
    def _bounded(cls, schema: dict[str, object]) -> dict[str, object]:
        if _depth(schema) > MAX_SCHEMA_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_SCHEMA_DEPTH} levels")
        try:
            size = len(json.dumps(schema, allow_nan=False))
        except (TypeError, ValueError):
            raise ValueError("it is not JSON") from None
        if size > MAX_SCHEMA_BYTES:
            raise ValueError(f"it is larger than {MAX_SCHEMA_BYTES:,} bytes")
        return schema


class ResponseFormat(BaseModel):
    """Any text, some JSON object, a document that follows `json_schema`, or a text that `regex`
    matches as a whole."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: FormatType
    json_schema: JsonSchema | None = Field(default=None, validate_default=True)
    regex: str | None = Field(
        default=None, min_length=1, max_length=MAX_REGEX_CHARS, validate_default=True
    )

    @field_validator("json_schema", "regex")
    @classmethod
    def _of_its_type(cls, value: object, info: ValidationInfo) -> object:
        kind = info.data.get("type")
        if kind == info.field_name and value is None:
            raise ValueError(f"type `{kind}` needs it")
        if kind is not None and kind != info.field_name and value is not None:
            raise ValueError(f"type `{kind}` does not go with it")
        return value


def _depth(value: object) -> int:
    """Levels of objects and lists, without recursion."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        inner, level = waiting.pop()
        if isinstance(inner, dict | list):
            deepest = max(deepest, level)
            parts = inner.values() if isinstance(inner, dict) else inner
            waiting += [(part, level + 1) for part in parts]
    return deepest
