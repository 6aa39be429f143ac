"""Which text PostgreSQL can hold. Knows no table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from penstock.errors import InvalidRequest


def is_storable(text: str) -> bool:
    """False for text with NUL, or with half of a surrogate pair."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def storable(text: str | None) -> str | None:
    """The text with U+FFFD in place of what PostgreSQL refuses."""
    if text is None or is_storable(text):
        return text
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "\ufffd")


def storable_json(value: Mapping[str, object]) -> str:
    """A JSON object as text that JSONB takes, with U+FFFD in place of what it refuses."""
    text = json.dumps(value, ensure_ascii=False)
    if "\\u0000" in text or not is_storable(text):
        text = json.dumps(_cleaned(value), ensure_ascii=False)
    return text


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(name)): _cleaned(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(part) for part in value]
    return value


def all_storable(value: object) -> bool:
    """Whether every text in a value made of JSON's types can be stored."""
    if isinstance(value, str):
        return is_storable(value)
    if isinstance(value, Mapping):
        return all(all_storable(part) for pair in value.items() for part in pair)
    if isinstance(value, Sequence):
        return all(all_storable(part) for part in value)
    return True


def require_storable(**fields: object) -> None:
    """Raise `InvalidRequest`, naming the field, for one that cannot be stored."""
    for name, value in fields.items():
        if not all_storable(value):
            raise InvalidRequest(
                f"{name} has a NUL character or half of a surrogate pair.", param=name
            )
