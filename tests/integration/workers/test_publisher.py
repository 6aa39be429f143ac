"""Text on its way to clients, on a real Redis: joined, bounded, and never in the engine's way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from storage.records import ClaimedRequest, ClaimedShard
from storage.states import Lane
from tests.support.waiting import until
from workers import publisher
from workers.pieces import Piece, client_url, decode, stream_key
from workers.publisher import Publisher

SHARD = ClaimedShard(
    id=7,
    epoch=3,
    batch_id="chat_1",
    lane=Lane.EXPRESS,
    alone=False,
    owner="default",
    params={"stream": True},
    system=None,
    requests=(ClaimedRequest(0, (("user", "hello"),)),),
)
KEY = stream_key("test:", "chat_1")

Make = Callable[[str], Publisher]


@pytest.fixture
def make_publisher() -> Iterator[Make]:
    started: list[Publisher] = []

    def make(url: str) -> Publisher:
        made = Publisher(url, "test:")
        made.start()
        started.append(made)
        return made

    yield make
    for one in started:
        assert one.stop()


@pytest.fixture
def redis(redis_socket: Path) -> Iterator[Redis]:
    with Redis(unix_socket_path=str(redis_socket)) as client:
        yield client


def _pieces(redis: Redis) -> list[Piece]:
    entries: Any = redis.xrange(KEY)
    found = [decode(fields) for _, fields in entries]
    return [piece for piece in found if piece is not None]


def test_text_is_published_with_its_attempt_and_place_and_joined_where_it_waited(
    redis_url: str, redis: Redis, make_publisher: Make
) -> None:
    say = make_publisher(redis_url).of(SHARD)
    assert say is not None
    words = ["one", " two", " thr\0ee", " ", "vier ü"] * 20

    for word in words:
        say(word)

    text = "".join(words).replace("\0", "\ufffd")
    until("all of it", lambda: "".join(piece.text for piece in _pieces(redis)) == text)
    pieces = _pieces(redis)
    assert len(pieces) < len(words)
    assert {piece.attempt for piece in pieces} == {(7, 3)}
    for piece in pieces:
        assert text[piece.offset :].startswith(piece.text)
    assert 0 < redis.ttl(KEY) <= publisher.EXPIRY


@pytest.mark.parametrize(
    "shard",
    [
        replace(SHARD, params={}),
        replace(SHARD, params={"stream": "yes"}),
        replace(SHARD, lane=Lane.BULK),
        replace(SHARD, requests=()),
    ],
)
def test_of_anything_but_a_streamed_chat_the_engine_is_asked_for_no_text(
    redis_url: str, make_publisher: Make, shard: ClaimedShard
) -> None:
    assert make_publisher(redis_url).of(shard) is None


def test_without_redis_text_is_dropped_at_once_and_later_text_keeps_its_place(
    make_publisher: Make, tmp_path: Path
) -> None:
    away = make_publisher(f"redis+socket://{tmp_path}/nothing.sock")
    say = away.of(SHARD)
    assert say is not None
    began = time.monotonic()

    for _ in range(3 * publisher.MAX_WAITING):
        say("word ")

    assert time.monotonic() - began < 30
    assert away.alive()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"a": b"1", b"o": b"0", b"t": b"x"},
        {b"a": b"1.2", b"o": b"-1", b"t": b"x"},
        {b"a": b"1.2", b"o": b"9" * 30, b"t": b"x"},
        {b"a": b"1.2", b"o": b"0", b"t": b"\xff"},
        {b"a": b"1.2.3", b"o": b"0", b"t": b"x"},
        {b"a": b"1.2", b"o": b"0"},
    ],
)
def test_what_no_worker_wrote_is_no_piece(fields: dict[bytes, bytes]) -> None:
    assert decode(fields) is None


@pytest.mark.parametrize(
    ("broker", "client"),
    [
        ("redis://:secret@host:6379/2", "redis://:secret@host:6379/2"),
        ("rediss://host", "rediss://host"),
        ("redis+socket:///run/my%20redis.sock", "unix:///run/my%20redis.sock?db=0"),
        ("redis+socket:///run/r.sock?virtual_host=3", "unix:///run/r.sock?db=3"),
    ],
)
def test_celerys_name_of_a_broker_is_understood(broker: str, client: str) -> None:
    assert client_url(broker) == client
