"""OpenAI's bodies: every parameter of its package is known here, read or refused by its name."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest
from openai.types import completion_create_params as of_text
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionStreamOptionsParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat import completion_create_params as of_chat
from pydantic import BaseModel

from api import openai_parameters as known
from api.openai_bodies import parse_call, render_completion
from api.openai_parameters import CHAT, TEXT
from penstock.errors import InvalidRequest
from penstock.schemas import openai as schemas
from penstock.schemas.openai_answers import ChatCompletion, TextCompletion
from storage.records import RAW, ResultRow

SAID: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
BODIES: dict[str, dict[str, Any]] = {CHAT: SAID, TEXT: {"prompt": "hello"}}
STREAM = {
    CHAT: of_chat.CompletionCreateParamsStreaming,
    TEXT: of_text.CompletionCreateParamsStreaming,
}
REQUESTS: dict[str, type[BaseModel]] = {
    CHAT: schemas.ChatCompletionRequest,
    TEXT: schemas.TextCompletionRequest,
}


def refused(endpoint: str, **members: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        parse_call(endpoint, {**BODIES[endpoint], **members}, 1_000)
    return error.value


@pytest.mark.parametrize("endpoint", [CHAT, TEXT])
def test_every_parameter_of_the_package_is_either_read_or_refused(endpoint: str) -> None:
    theirs = typing.get_type_hints(STREAM[endpoint]).keys()
    read, neutral = REQUESTS[endpoint].model_fields.keys(), known.NEUTRAL[endpoint].keys()

    assert theirs <= read | neutral
    assert not theirs & read & neutral


def test_every_member_of_a_message_and_of_the_stream_options_is_too() -> None:
    turns = [
        ChatCompletionAssistantMessageParam,
        ChatCompletionDeveloperMessageParam,
        ChatCompletionSystemMessageParam,
        ChatCompletionUserMessageParam,
    ]
    theirs = {name for turn in turns for name in turn.__annotations__}

    assert theirs <= {"role", "content"} | known.MESSAGE.keys()
    part = ChatCompletionContentPartTextParam.__annotations__.keys()
    assert part <= {"type", "text"} | known.PART.keys()
    options = ChatCompletionStreamOptionsParam.__annotations__.keys()
    assert options <= schemas.StreamOptions.model_fields.keys() | known.STREAM_OPTIONS.keys()


@pytest.mark.parametrize(
    ("endpoint", "name"), [(path, name) for path in BODIES for name in known.NEUTRAL[path]]
)
def test_what_has_no_effect_is_refused_by_name_unless_it_asks_for_nothing(
    endpoint: str, name: str
) -> None:
    error = refused(endpoint, **{name: {"wanted": 1}})
    assert (error.code, error.param) == ("unsupported_parameter", name)
    assert f"`{name}`" in error.message
    plain = parse_call(endpoint, BODIES[endpoint], 1_000)
    for nothing in (None, *known.NEUTRAL[endpoint][name]):
        assert parse_call(endpoint, {**BODIES[endpoint], name: nothing}, 1_000) == plain


def test_a_chat_has_openais_defaults() -> None:
    call = parse_call(CHAT, SAID, 1_000)

    assert call.messages == (("user", "hello"),)
    assert (call.model, call.stream, call.include_usage, call.metadata) == (None, False, False, {})
    asked = {name: call.params[name] for name in ("temperature", "top_p", "n", "max_tokens")}
    assert asked == {"temperature": 1, "top_p": 1, "n": 1, "max_tokens": 2_048}


def test_every_parameter_arrives_under_the_name_that_workers_know() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    same = {
        "temperature": 0.5,
        "top_p": 0.25,
        "n": 2,
        "stop": ["a", "b"],
        "seed": 7,
        "logprobs": True,
        "top_logprobs": 3,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "response_format": schema,
        "top_k": 5,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
    }
    others = {"model": "m", "metadata": {"a": "b"}, "priority": 4, "user": "u"}

    call = parse_call(CHAT, {**SAID, **same, **others, "max_completion_tokens": 9}, 1_000)

    as_text = {"name": "n", "schema": '{"type": "object"}'}
    stored = {"type": "json_schema", "json_schema": as_text}
    ours = {"max_tokens": 9, "mode": "generate", "length_normalized": False}
    assert call.params == {**same, **ours, "response_format": stored}
    assert (call.model, call.metadata, call.priority) == ("m", {"a": "b"}, 4)


def test_one_stop_text_and_labels_are_read() -> None:
    call = parse_call(CHAT, {**SAID, "choices": ["yes", "no"], "mode": "score"}, 1_000)
    assert (call.params["mode"], call.params["choices"]) == ("score", ["yes", "no"])
    assert parse_call(TEXT, {"prompt": "a", "stop": "\n"}, 9).params["stop"] == ["\n"]


def test_a_stream_says_what_else_it_has() -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    call = parse_call(CHAT, {**SAID, "stream": True, "stream_options": options}, 1_000)
    assert (call.stream, call.include_usage) == (True, True)
    assert "stream" not in call.params


def test_roles_and_parts_become_turns() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    turns = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes", "refusal": None, "tool_calls": None, "audio": None},
        {"role": "user", "content": parts},
    ]

    call = parse_call(CHAT, {"messages": turns}, 1_000)

    expected = ["system: be brief", "user: hi", "assistant: yes", "user: one\ntwo"]
    assert [f"{role}: {content}" for role, content in call.messages] == expected


def test_a_text_is_a_raw_prompt_with_the_defaults_of_its_endpoint() -> None:
    for prompt in ("go on", ["go on"]):
        call = parse_call(TEXT, {"prompt": prompt, "logprobs": 2}, 1_000)
        assert call.messages == ((RAW, "go on"),)
        asked = [call.params[name] for name in ("max_tokens", "logprobs", "top_logprobs")]
        assert asked == [16, True, 2]
    assert parse_call(TEXT, {"prompt": "a", "logprobs": None}, 9).params["logprobs"] is False


@pytest.mark.parametrize(
    ("endpoint", "members", "param"),
    [
        (CHAT, {"messages": None}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": ["hi"]}, "messages[0]"),
        (CHAT, {"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        (CHAT, {"messages": [{"role": ["user"], "content": "a"}]}, "messages[0].role"),
        (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "user", "content": ""}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 1_001}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "\0"}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages[0].name"),
        (CHAT, {"messages": [{"role": "user", "content": "a", "x": 1}]}, "messages[0].x"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            "messages[0].content[0].text",
        ),
        (CHAT, {"prompt": "a"}, "prompt"),
        (CHAT, {"temperature": 3}, "temperature"),
        (CHAT, {"max_completion_tokens": 0}, "max_completion_tokens"),
        (CHAT, {"max_completion_tokens": 1, "max_tokens": 1}, "max_completion_tokens"),
        (CHAT, {"logprobs": 1}, "logprobs"),
        (CHAT, {"top_logprobs": 1}, "top_logprobs"),
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
        (CHAT, {"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        (
            CHAT,
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        (CHAT, {"stream": True, "n": 2}, "n"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (CHAT, {"metadata": {"a": 1}}, "metadata.a"),
        (CHAT, {"user": 5}, "user"),
        (CHAT, {"new_in_a_later_release": 1}, "new_in_a_later_release"),
        (TEXT, {"prompt": None}, "prompt"),
        (TEXT, {"prompt": ["a", "b"]}, "prompt"),
        (TEXT, {"prompt": [1, 2]}, "prompt"),
        (TEXT, {"prompt": ""}, "prompt"),
        (TEXT, {"logprobs": 6}, "logprobs"),
        (TEXT, {"logprobs": True}, "logprobs"),
        (TEXT, {"logprobs": 5, "max_tokens": 100_000}, "logprobs"),
        (TEXT, {"max_completion_tokens": 1}, "max_completion_tokens"),
    ],
)
def test_what_is_wrong_is_named(endpoint: str, members: dict[str, Any], param: str) -> None:
    error = refused(endpoint, **members)
    assert error.param == param
    assert error.message


ROW = ResultRow(0, "ab", "length", None, None, prompt_tokens=3, completion_tokens=2)
SCORED = [
    {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -0.5}]},
    {"token": "\ufffd", "logprob": -2.0, "top_logprobs": [{"token": "c", "logprob": -1.0}]},
]


def rendered(endpoint: str, detail: Any = None, **asked: object) -> Any:
    """An answer that has the declared shape."""
    body = render_completion(endpoint, "chat_1", 5, "m", ROW, detail, asked)
    answer = {CHAT: ChatCompletion, TEXT: TextCompletion}[endpoint]
    assert answer.model_validate(body).model_dump(exclude_unset=True) == body
    return json.loads(json.dumps(body))


def test_an_answer_has_openais_form() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    shared = {"id": "chat_1", "created": 5, "model": "m", "usage": usage}
    choice = {"index": 0, "logprobs": None, "finish_reason": "length"}

    message = {"role": "assistant", "content": "ab", "refusal": None}
    assert rendered(CHAT) == {
        **shared,
        "object": "chat.completion",
        "choices": [{**choice, "message": message}],
    }
    assert rendered(TEXT) == {
        **shared,
        "object": "text_completion",
        "choices": [{**choice, "text": "ab"}],
    }


def test_several_answers_are_several_choices_each_with_its_log_probabilities() -> None:
    answers = [
        {"text": "ab", "finish_reason": "length", "tokens": 2, "logprobs": SCORED},
        {"text": "", "finish_reason": "stop", "tokens": 1},
    ]

    first, second = rendered(CHAT, {"completions": answers}, logprobs=True)["choices"]

    assert (first["index"], second["index"]) == (0, 1)
    assert (first["message"]["content"], second["message"]["content"]) == ("ab", "")
    assert (first["finish_reason"], second["finish_reason"]) == ("length", "stop")
    assert [token["bytes"] for token in first["logprobs"]["content"]] == [[97], None]
    assert first["logprobs"]["content"][1]["top_logprobs"][0]["token"] == "c"
    assert second["logprobs"] == {"content": [], "refusal": None}


def test_a_texts_log_probabilities_are_lists_beside_each_other() -> None:
    (choice,) = rendered(TEXT, {"logprobs": SCORED}, logprobs=True, top_logprobs=1)["choices"]

    assert choice["logprobs"] == {
        "tokens": ["a", "\ufffd"],
        "token_logprobs": [-0.5, -2.0],
        "top_logprobs": [{"a": -0.5}, {"\ufffd": -2.0, "c": -1.0}],
        "text_offset": [0, 1],
    }
    (alone,) = rendered(TEXT, {"logprobs": SCORED}, logprobs=True, top_logprobs=0)["choices"]
    assert alone["logprobs"]["top_logprobs"] is None


def test_scored_labels_have_their_probabilities_beside_the_likeliest() -> None:
    detail = {"probabilities": {"ab": 0.75, "c": 0.25}, "scores": {"ab": -1.0, "c": -2.0}}
    (choice,) = rendered(CHAT, detail, mode="score")["choices"]
    assert (choice["message"]["content"], choice["probabilities"]["c"]) == ("ab", 0.25)
