"""Bodies that nobody should send: each is refused in the one shape, and none is a 5xx."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from storage.database import Database
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape

JSON = {"Content-Type": "application/json"}
MALFORMED = [
    b"",
    b" ",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"17",
    b'{"messages": ["a"]',
    b'{"messages": ["a"',
    b'{"messages": ["a"',
    b'{"messages": ["a"],}',
    b'{"messages": ["a",]}',
    b'{"messages": ["a"]} {}',
    b'{"messages": ["a"]}\0',
    b"{'messages': ['a']}",
    b"{messages: 1}",
    b'{"messages" ["a"]}',
    b'{"messages": ["a" "b"]}',
    b'{"messages": ["\x00"]}',
    b'{"messages": ["\xff\xfe"]}',
    b'{"messages": ["\xc3"]}',
    b"\xef\xbb\xbf" + b'{"messages": ["a"]}',
    '{"messages": ["a"]}'.encode("utf-16"),
    b'{"messages": [NaN]}',
    b'{"messages": ["a"], "temperature": NaN}',
    b'{"messages": ["a"], "temperature": -Infinity}',
    b'{"messages": ["a"], "seed": ' + b"9" * 5_000 + b"}",
    b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"messages": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
]


def schema_of(schema: object) -> dict[str, object]:
    """The field that asks for a document of this schema."""
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def nested(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


#: Fields of a body whose `messages` are good unless given, and which one is named.
WRONG: list[tuple[dict[str, object], str | None]] = [
    ({"messages": None}, "messages"),
    ({"messages": "text"}, "messages"),
    ({"messages": {"a": 1}}, "messages"),
    ({"messages": []}, "messages"),
    ({}, "messages"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"max_tokens": 10**4000}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_tokens": {}}, "max_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"seed": 2**63}, "seed"),
    ({"stop": [""]}, "stop.0"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stop": ["nul \0"]}, "stop"),
    ({"stop": 5}, "stop"),
    ({"system": "nul \0"}, "system"),
    ({"system": "half \ud800"}, "system"),
    ({"system": "x" * 100_001}, "system"),
    ({"model": "half \udfff"}, "model"),
    ({"model": "nul \0"}, "model"),
    ({"model": 5}, "model"),
    ({"priority": 101}, "priority"),
    ({"expires_in": 0}, "expires_in"),
    ({"metadata": {"k": "nul \0"}}, "metadata.k"),
    ({"metadata": {"nul \0": "v"}}, "metadata.nul \ufffd"),
    ({"metadata": {"half \ud800": "v"}}, "metadata.half \ufffd"),
    ({"metadata": {"k": 5}}, "metadata.k"),
    ({"metadata": {f"k{i}": "v" for i in range(17)}}, "metadata"),
    ({"metadata": {"k" * 65: "v"}}, "metadata." + "k" * 65),
    ({"metadata": [1]}, "metadata"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"n": True}, "n"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"logprobs": 5}, "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 1}, "top_logprobs"),
    ({"logprobs": True, "n": 16, "max_tokens": 100_000}, "logprobs"),
    ({"logprobs": True, "top_logprobs": 20, "max_tokens": 100_000}, "top_logprobs"),
    ({"choices": "a,b"}, "choices"),
    ({"choices": ["a"]}, "choices"),
    ({"choices": ["a", "a"]}, "choices"),
    ({"choices": ["a", " "]}, "choices.1"),
    ({"choices": ["a", "b" * 257]}, "choices.1"),
    ({"choices": ["a", "nul \0"]}, "choices"),
    ({"choices": [str(i) for i in range(257)]}, "choices"),
    ({"choices": ["a", "b"], "response_format": {"type": "json_object"}}, "choices"),
    ({"mode": "guess"}, "mode"),
    ({"mode": "score"}, "choices"),
    ({"mode": "score", "choices": ["a", "b"], "n": 2}, "n"),
    ({"mode": "score", "choices": ["a", "b"], "stop": "x"}, "stop"),
    ({"mode": "score", "choices": ["a", "b"], "logprobs": True}, "logprobs"),
    (
        {"mode": "score", "choices": ["a", "b"], "response_format": {"type": "json_object"}},
        "response_format",
    ),
    ({"length_normalized": True}, "length_normalized"),
    ({"mode": "count", "length_normalized": True}, "length_normalized"),
    ({"mode": "score", "choices": ["a", "b"], "length_normalized": 1}, "length_normalized"),
    ({"mode": "count", "n": 2}, "n"),
    ({"mode": "count", "choices": ["a", "a"]}, "choices"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "regex"}}, "response_format.regex"),
    ({"response_format": {"type": "regex", "regex": ""}}, "response_format.regex"),
    ({"response_format": {"type": "regex", "regex": "a" * 4_097}}, "response_format.regex"),
    ({"response_format": {"type": "text", "regex": "a"}}, "response_format.regex"),
    ({"response_format": {"type": "text", "colour": 1}}, "response_format.colour"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        "response_format.json_schema.schema",
    ),
    (schema_of({"a": "x" * 70_000}), "response_format.json_schema.schema"),
    (schema_of(nested(40)), "response_format.json_schema.schema"),
    (schema_of(nested(500)), "response_format.json_schema.schema"),
    (schema_of({"const": "nul \0"}), "response_format.json_schema.schema.const"),
    ({"callback_url": "http://127.0.0.1/"}, "callback_url"),
    ({"colour": "red"}, "colour"),
    ({"half \ud800": 1}, "half \ufffd"),
    ({"": 1}, None),
    ({"x" * 5_000: 1}, "x" * 100 + "…"),
]


@pytest.mark.parametrize("path", ["/batch-generate", "/chat"])
def test_malformed_json_is_400(client: TestClient, path: str) -> None:
    for body in MALFORMED:
        answer = client.post(path, content=body, headers=JSON)

        assert answer.status_code == 400, (body[:80], answer.text)
        assert check_shape(answer)["code"] == "malformed_body"


def test_a_wrong_field_is_422_by_name(client: TestClient) -> None:
    for fields, param in WRONG:
        whole = fields if "messages" in fields or not fields else {"messages": ["a"], **fields}

        answer = client.post("/batch-generate", content=json.dumps(whole).encode(), headers=JSON)

        assert answer.status_code == 422, (fields, answer.text)
        assert check_shape(answer)["param"] == param


def test_what_cannot_be_followed_is_refused_before_anything_is_stored(
    client: TestClient, database: Database
) -> None:
    cases: list[tuple[str, dict[str, object]]] = [
        ("/batch-generate", {"messages": ["a"], **schema_of({"type": "no such type"})}),
        ("/chat", {"message": "a", "response_format": {"type": "regex", "regex": "("}}),
    ]
    for path, body in cases:
        answer = client.post(path, json=body)

        assert answer.status_code == 422, answer.text
        assert str(check_shape(answer)["param"]).startswith("response_format")
    with database.begin() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM batches").scalar_one() == 0


def test_an_error_says_what_contradicts_what(client: TestClient) -> None:
    body = {"messages": ["a"], "choices": ["a", "b"], "mode": "score", "n": 2}

    answer = client.post("/batch-generate", json=body)

    assert answer.json()["detail"] == (
        "`n`: Mode `score` does not go with it, since no text is drawn."
    )


def test_null_stands_for_absent(client: TestClient) -> None:
    body = {"messages": ["a"], "n": None, "callback_url": None, "seed": None, "max_tokens": None}

    assert client.post("/batch-generate", json=body).status_code == 202


def test_infinity_written_as_a_number_is_refused(client: TestClient) -> None:
    body = b'{"messages": ["a"], "max_tokens": 1e999}'

    answer = client.post("/batch-generate", content=body, headers=JSON)

    assert (answer.status_code, check_shape(answer)["param"]) == (422, "max_tokens")


def test_too_many_prompts_are_refused_with_the_limit(client: TestClient) -> None:
    body = b'{"messages": [' + b",".join([b'"a"'] * 250_000) + b"]}"

    answer = client.post("/batch-generate", content=body, headers=JSON)

    assert (answer.status_code, check_shape(answer)["param"]) == (422, "messages")
    assert "1000" in answer.json()["detail"]


def test_a_million_tiny_messages_are_refused_and_the_service_lives(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=10_000_000, max_bytes_in_flight=20_000_000)
    body = b'{"messages": [' + b",".join([b"[]"] * 1_000_000) + b"]}"

    answer = client.post("/batch-generate", content=body, headers=JSON)

    assert answer.status_code == 422
    assert client.get("/healthz").status_code == 200


def test_a_body_of_brackets_is_refused_before_it_fills_the_memory(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=50_000_000, max_bytes_in_flight=50_000_000)
    body = b'{"messages": [[' + b"[]," * 11_000_000 + b"[]]]}"

    answer = client.post("/batch-generate", content=body, headers=JSON)

    assert (answer.status_code, check_shape(answer)["code"]) == (413, "too_large")


def test_a_body_over_the_limit_is_413_with_and_without_a_length(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 100_000

    with_length = client.post("/batch-generate", content=b" " * 2_000_001, headers=JSON)
    without = client.post("/batch-generate", content=chunks(), headers=JSON)

    for answer in (with_length, without):
        assert answer.status_code == 413
        assert check_shape(answer)["code"] == "too_large"
        assert "2000000" in answer.json()["detail"]


def test_more_bytes_at_once_than_allowed_are_503(make_client: MakeClient) -> None:
    client = make_client(max_bytes_in_flight=1_000)

    answer = client.post("/batch-generate", json={"messages": ["x" * 2_000]})

    assert (answer.status_code, check_shape(answer)["code"]) == (503, "overloaded")
    assert int(answer.headers["Retry-After"]) > 0
    # What was held is free again.
    assert client.post("/batch-generate", json={"messages": ["x"]}).status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_only_plain_json_is_read(client: TestClient, headers: dict[str, str]) -> None:
    body = gzip.compress(b'{"messages": ["a"]}')

    answer = client.post("/batch-generate", content=body, headers=headers)

    assert answer.status_code == 415
    check_shape(answer)


def test_json_with_a_charset_is_json(client: TestClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}

    answer = client.post("/batch-generate", content=b'{"messages": ["a"]}', headers=headers)

    assert answer.status_code == 202


def test_random_damage_to_a_good_body_is_never_a_5xx(client: TestClient) -> None:
    good = json.dumps(
        {
            "messages": ["é \ud83d\ude00", [{"role": "user", "content": "x"}], "\ud800"],
            "metadata": {"a": "b"},
            "stop": ["x"],
            "temperature": 0.5,
            "seed": 12,
        }
    ).encode()
    chance = random.Random(7)
    for _ in range(300):
        body = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(body))
            match chance.randrange(4):
                case 0:
                    body[at] = chance.randrange(256)
                case 1:
                    del body[at : at + chance.randint(1, 9)]
                case 2:
                    body[at:at] = os.urandom(2)
                case _:
                    body[at:at] = chance.choice([b"{", b"[", b'"', b"\\u0000", b"1e999", b"null"])
            if not body:
                body = bytearray(good)
        path = chance.choice(["/batch-generate", "/chat"])
        answer = client.post(path, content=bytes(body), headers=JSON)
        assert answer.status_code in (202, 400, 422), (answer.status_code, bytes(body))
        if answer.status_code != 202:
            check_shape(answer)
