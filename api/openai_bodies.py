"""OpenAI's completion bodies: what a request asks for, in Penstock's terms, and the whole answer.

The same for a request of its own and for a line of a batch. Knows no HTTP and no SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api import intake
from api.openai_choices import chat_choices, text_choices
from api.openai_messages import read_messages, read_prompt
from api.openai_parameters import (
    CHAT,
    NEUTRAL,
    STREAM_OPTIONS,
    TEXT,
    UnsupportedParameter,
    drop_neutral,
)
from penstock.errors import InvalidRequest
from penstock.schemas.openai import (
    MAX_TEXT_LOGPROBS,
    ChatCompletionFields,
    CompletionFields,
    TextCompletionFields,
)
from storage.records import Messages, Params, ResultRow

OBJECTS: Final = {CHAT: "chat.completion", TEXT: "text_completion"}
LIMITS: Final = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class Call:
    """One completion that is asked for. `params` are as `/batch-generate` would store them."""

    model: str | None
    messages: Messages
    params: dict[str, object]
    stream: bool
    include_usage: bool
    metadata: dict[str, str]
    priority: int


def parse_call(endpoint: str, members: dict[str, object], max_prompt_bytes: int) -> Call:
    """Read the members of a body; `endpoint` is `CHAT` or `TEXT`. Raises `InvalidRequest`, with
    the parameter that is wrong or not supported."""
    members = dict(members)
    drop_neutral(members, NEUTRAL[endpoint])
    if isinstance(options := members.get("stream_options"), dict):
        members["stream_options"] = options = dict(options)
        drop_neutral(options, STREAM_OPTIONS, "stream_options.")
    if endpoint == CHAT:
        messages = read_messages(members.pop("messages", None), max_prompt_bytes)
        fields = _chat_fields(members)
    else:
        messages = read_prompt(members.pop("prompt", None), max_prompt_bytes)
        fields = _text_fields(members)
    if fields.stream and fields.n > 1:
        raise UnsupportedParameter("`n` above 1 is not supported with `stream`.", param="n")
    return Call(
        model=fields.model,
        messages=messages,
        params=intake.sampling_params(fields),
        stream=fields.stream,
        include_usage=fields.stream_options is not None and fields.stream_options.include_usage,
        metadata=fields.metadata,
        priority=fields.priority,
    )


def _chat_fields(members: dict[str, object]) -> CompletionFields:
    """`max_completion_tokens` is the later name of `max_tokens`; an error has the one given."""
    later, earlier = LIMITS
    most = members.pop(later, None)
    if most is None:
        return intake.parse_fields(ChatCompletionFields, members)
    if members.get(earlier) is not None:
        raise InvalidRequest(f"Give `{later}` or `{earlier}`, not both.", param=later)
    members[earlier] = most
    return _parse_renamed(ChatCompletionFields, members, earlier, later)


def _text_fields(members: dict[str, object]) -> CompletionFields:
    """`logprobs` is the number of the likeliest tokens to tell of."""
    most = members.pop("logprobs", None)
    if most is None:
        return intake.parse_fields(TextCompletionFields, members)
    if not isinstance(most, int) or isinstance(most, bool) or not 0 <= most <= MAX_TEXT_LOGPROBS:
        raise InvalidRequest(
            f"`logprobs` has to be an integer from 0 to {MAX_TEXT_LOGPROBS}.", param="logprobs"
        )
    members |= {"logprobs": True, "top_logprobs": most}
    return _parse_renamed(TextCompletionFields, members, "top_logprobs", "logprobs")


def _parse_renamed(
    schema: type[CompletionFields], members: dict[str, object], ours: str, given: str
) -> CompletionFields:
    try:
        return intake.parse_fields(schema, members)
    except InvalidRequest as error:
        if error.param != ours:
            raise
        raise InvalidRequest(
            error.message.replace(f"`{ours}`", f"`{given}`"), param=given
        ) from None


def render_completion(
    endpoint: str,
    call_id: str,
    created: int,
    model: str,
    row: ResultRow,
    detail: Mapping[str, object] | None,
    asked: Params,
) -> dict[str, object]:
    """The body of an answer that is not streamed, of a row that has a text. `created`: seconds
    since 1970."""
    choices = chat_choices if endpoint == CHAT else text_choices
    return {
        "id": call_id,
        "object": OBJECTS[endpoint],
        "created": created,
        "model": model,
        "choices": choices(row, detail, asked),
        "usage": render_usage(row),
    }


def render_usage(row: ResultRow) -> dict[str, object]:
    """Tokens; with several answers, of all of them."""
    return {
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "total_tokens": row.prompt_tokens + row.completion_tokens,
    }
