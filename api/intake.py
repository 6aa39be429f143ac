"""Bodies to records: fields by pydantic, prompts one by one in plain Python.

A field that is wrong refuses the request; a prompt that is wrong fails alone, with its reason.
Knows no HTTP and no SQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from api.errors import invalid_fields, printable
from api.json_body import memory_of, parse_object
from models.constraints import check_constraint
from penstock.errors import InvalidRequest, PromptError
from penstock.schemas.batch import BatchFields
from penstock.schemas.sampling import SamplingFields
from storage.records import Messages, NewPrompt
from storage.text import is_storable
from workers.params import constraint

Model = TypeVar("Model", bound=BaseModel)
Fields = TypeVar("Fields", bound=SamplingFields)

ROLES: Final = frozenset({"system", "user", "assistant"})
MAX_KEY: Final = 255  # characters of an Idempotency-Key


@dataclass(frozen=True, slots=True)
class ParsedJob:
    """A `/batch-generate` body. `messages` are as they came; `memory`: about the most bytes that
    they take."""

    fields: BatchFields
    messages: list[object]
    memory: int


def parse_job(body: bytearray, max_prompts: int) -> ParsedJob:
    """Read a job and empty `body`. Raises `InvalidRequest` and its kin."""
    memory = memory_of(body)
    members = parse_object(body, long_list="messages", most=max_prompts)
    messages = members.pop("messages", None)
    if not isinstance(messages, list):
        problem = "is missing" if messages is None else "has to be a list"
        raise InvalidRequest(f"`messages` {problem}.", param="messages")
    if not messages:
        raise InvalidRequest("`messages` is empty.", param="messages")
    return ParsedJob(parse_fields(BatchFields, members), messages, memory)


def parse_fields(schema: type[Fields], members: dict[str, object]) -> Fields:
    """Check all that is not a list of prompts. The first wrong field is named in the error; a
    schema or a regular expression that nothing can follow is one, too."""
    fields = validated(schema, members)
    if (wanted := constraint(sampling_params(fields))) is not None:
        check_constraint(wanted)
    return fields


def validated(schema: type[Model], members: dict[str, object]) -> Model:
    """The members as `schema` has them; null is absent. The first wrong one is named in the
    error."""
    known = schema.model_fields
    given = {k: v for k, v in members.items() if v is not None or k not in known}
    _check_texts(given)
    return checked(schema, given)


def checked(schema: type[Model], members: dict[str, object]) -> Model:
    """The members as `schema` has them, null included. The first wrong one is named in the error,
    an `InvalidRequest`."""
    try:
        return schema.model_validate(members)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid_fields(found) from None


def _check_texts(members: dict[str, object]) -> None:
    """Refuse text that PostgreSQL cannot hold, wherever it is; without recursion."""
    waiting: list[tuple[str, object]] = [("", members)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str) and not is_storable(value):
            raise InvalidRequest(f"`{path}` holds NUL or half a surrogate pair.", param=path)
        if isinstance(value, dict):
            for key, inner in value.items():
                at = printable(f"{path}.{key}" if path else key)
                waiting += [(at, key), (at, inner)]
        elif isinstance(value, list):
            waiting += [(path, inner) for inner in value]


def sampling_params(fields: SamplingFields) -> dict[str, object]:
    """The parameters of sampling alone, as they are stored: a JSON schema as its text, since the
    order of its properties is that of the answer, and JSONB keeps none."""
    found = fields.model_dump(
        include=set(SamplingFields.model_fields), by_alias=True, exclude_none=True
    )
    wanted = fields.response_format
    if wanted is not None and wanted.json_schema is not None:
        found["response_format"]["json_schema"]["schema"] = json.dumps(wanted.json_schema.schema_)
    return found


def check_idempotency_key(key: str | None) -> str | None:
    """The header's value: 1 to 255 visible ASCII characters."""
    if key is None or (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        return key
    raise InvalidRequest(
        f"`Idempotency-Key` has to be 1 to {MAX_KEY} visible ASCII characters.",
        param="Idempotency-Key",
    )


def to_prompts(messages: list[object], max_bytes: int) -> Iterator[NewPrompt]:
    """One record for each, in order, made as it is asked for."""
    return (to_prompt(message, max_bytes) for message in messages)


def to_prompt(message: object, max_bytes: int) -> NewPrompt:
    """A string, or a list of chat messages, as a prompt that can run, or as the reason why not."""
    if isinstance(message, str):
        turns: Messages = (("user", message),)
    else:
        read = _read_turns(message)
        if isinstance(read, str):
            return _failed(PromptError.INVALID_MESSAGE, read)
        turns = read
    size = 0
    for _, content in turns:
        # A character has one byte or more: no need to encode what is too long already.
        size += len(content) if content.isascii() or len(content) > max_bytes else _size(content)
    if size > max_bytes:
        return _failed(PromptError.TOO_LARGE, f"The prompt is larger than {max_bytes} bytes.")
    if not all(is_storable(content) for _, content in turns):
        return _failed(PromptError.INVALID_TEXT, "The prompt holds NUL or half a surrogate pair.")
    if not turns[-1][1].strip():
        return _failed(PromptError.EMPTY, "The prompt is empty.")
    return NewPrompt(turns)


def _size(content: str) -> int:
    return len(content.encode("utf-8", "surrogatepass"))


def _read_turns(message: object) -> Messages | str:
    """(role, content) turns, or what is wrong with them."""
    if not isinstance(message, list) or not message:
        return "A prompt has to be a string or a list of chat messages."
    turns = []
    for turn in message:
        if not isinstance(turn, dict) or turn.keys() != {"role", "content"}:
            return "A chat message has to be an object with `role` and `content` alone."
        role, content = turn["role"], turn["content"]
        if not isinstance(role, str) or role not in ROLES:
            return "`role` has to be system, user or assistant."
        if not isinstance(content, str):
            return "`content` has to be a string."
        turns.append((role, content))
    return tuple(turns)


def _failed(code: PromptError, message: str) -> NewPrompt:
    return NewPrompt(None, code.value, message)
