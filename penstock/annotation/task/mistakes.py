"""What is wrong with a task file, in one sentence that names the key. Knows pydantic's errors."""

from __future__ import annotations

from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

from penstock.errors import InvalidRequest

#: Where pydantic would name a type of Python's.
_REASONS = {
    "tuple_type": 'it has to be a list, such as ["one", "two"]',
    "dict_type": "it has to be a table of keys and values",
    "string_too_short": "it is empty",
}


def sentence(error: ValidationError, source: str, model: type[BaseModel]) -> InvalidRequest:
    """The first mistake. `source`: the file, or how else the task is called."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = [str(part) for part in first["loc"] if not _is_branch(part)]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _keys(model, path[:-1])
        close = get_close_matches(path[-1], known, n=1, cutoff=0.6)
        meant = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}."
        return InvalidRequest(f"{source} has an unknown key {key!r}; {meant}", param=key)
    if first["type"] == "missing":
        return InvalidRequest(f"{source} needs the key {key!r}.", param=key)
    reason = _REASONS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    return InvalidRequest(f"{source}, key {key!r}: {reason}.", param=key or "task")


def _is_branch(part: object) -> bool:
    """A branch of a union, which is no key: `list[str]`."""
    return part in ("str", "list[str]", "dict[str,any]")


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """Of the table at `path`."""
    for name in path:
        field = model.model_fields.get(name)
        inner = field.annotation if field is not None else None
        arguments = getattr(inner, "__args__", (inner,))
        found = [kind for kind in arguments if isinstance(kind, type)]
        if found and issubclass(found[0], BaseModel):
            model = found[0]
    return list(model.model_fields)
