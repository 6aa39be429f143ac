"""Only a wake-up is taken for one, and nothing of it but its id and lane is handed on."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any

import pytest

from workers.app import make_app
from workers.messages import TASK, is_envelope, wake_up

QUEUE = "gpu.fake.bulk"


def made(arguments: object = None, embed: object = None, **parts: Any) -> dict[str, Any]:
    """A good one, but for what is given."""
    kwargs = {"lane": "bulk"} if arguments is None else arguments
    return {
        "body": json.dumps([[], kwargs, {} if embed is None else embed]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": TASK, "id": "bulk-7-abc", "lang": "py"},
        "properties": {"delivery_tag": "t", "delivery_info": {"routing_key": QUEUE}},
    } | parts


def headers(**changes: Any) -> dict[str, Any]:
    return {**made()["headers"], **changes}


def properties(**changes: Any) -> dict[str, Any]:
    return {**made()["properties"], **changes}


def test_a_wake_up_is_taken_plain_and_encoded() -> None:
    body = base64.b64encode(made()["body"].encode()).decode()
    encoded = made(body=body, properties=properties(body_encoding="base64"))
    for message in (made(), encoded):
        taken = wake_up(message, QUEUE)
        assert taken is not None
        assert json.loads(taken["body"]) == [[], {"lane": "bulk"}, {}]
        assert taken["headers"]["id"] == "bulk-7-abc"


@pytest.mark.parametrize("lane", ["bulk", "express"])
def test_every_wake_up_that_is_sent_is_taken(lane: str) -> None:
    assert wake_up(made({"lane": lane}), QUEUE) is not None


def test_nothing_that_came_along_is_handed_on() -> None:
    orders = headers(eta="2999-01-01", expires=[], timelimit="x", stamped_headers=5, retries="x")
    orders |= {"argsrepr": "a" * 10**6, "group": [1], "compression": "zlib"}
    tail = {"callbacks": [{"task": "os.system"}], "chain": [5], "chord": {"a": 1}}
    asked = properties(reply_to="x", correlation_id=[], delivery_info={"exchange": "evil"})
    taken = wake_up(made(embed=tail, headers=orders, properties=asked), QUEUE)
    plain = wake_up(made(), QUEUE)
    assert taken is not None
    assert plain is not None
    assert taken["properties"].pop("delivery_tag") != plain["properties"].pop("delivery_tag")
    assert taken == plain


@pytest.mark.parametrize(
    "message",
    [
        None,
        5,
        [],
        {},
        {"body": 1},
        made(headers=None),
        made(headers=[]),
        made(properties=[]),
        made(properties={}),
        made(properties=properties(delivery_info=5)),
        made(properties=properties(delivery_tag=None)),
        made(properties=properties(body_encoding="rot13")),
        made(properties=properties(body_encoding=[])),
        made(**{"content-type": "application/x-python-serialize"}),
        made(**{"content-type": "application/x-yaml"}, body="!!python/object/apply:os.system [x]"),
        made(**{"content-type": None}),
        made(**{"content-encoding": "binary"}),
        made(body=base64.b64encode(pickle.dumps([[], {}, {}])).decode()),
    ],
)
def test_what_is_not_json_in_its_envelope_is_refused(message: Any) -> None:
    assert wake_up(message, QUEUE) is None


@pytest.mark.parametrize("body", ["", "{", "5", "null", "{}", "[1]", "[1, 2, 3]", "\0", "[" * 900])
def test_a_body_that_is_no_call_is_refused(body: str) -> None:
    assert is_envelope(made(body=body))
    assert wake_up(made(body=body), QUEUE) is None
    assert wake_up(made(body=body, properties=properties(body_encoding="base64")), QUEUE) is None


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"shard": 1},
        {"lane": "bulk", "shard": 1},
        {"lane": "bulk", "model": "another"},
        {"lane": "1; DROP TABLE results"},
        {"lane": True},
        {"lane": 1.0},
        {"lane": float("nan")},
        {"lane": "nowhere"},
        {"lane": ["bulk"]},
        {"lane": {"bulk": 1}},
        {"lane": None},
        {"lane": "x" * 10_000_000},
    ],
)
def test_arguments_that_nobody_sends_are_refused(arguments: object) -> None:
    assert wake_up(made(arguments), QUEUE) is None


@pytest.mark.parametrize(
    "given",
    [
        {"task": "os.system"},
        {"task": "celery.chord_unlock"},
        {"task": [TASK]},
        {"id": None},
        {"id": [1]},
        {"id": "x" * 101},
    ],
)
def test_another_task_and_a_broken_id_are_refused(given: dict[str, Any]) -> None:
    assert wake_up(made(headers=headers(**given)), QUEUE) is None


@pytest.mark.parametrize("url", ["redis://a/0", "rediss://a/0", "redis+socket:///tmp/a.sock"])
def test_every_redis_is_read_by_the_transport_that_refuses(url: str) -> None:
    transport = make_app(url, "p:").connection().get_transport_cls()
    assert transport.__module__ == "workers.broker"
