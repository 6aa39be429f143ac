"""`follow`: text from Redis, the truth from PostgreSQL, whatever becomes of either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from redis import Redis

from api import pieces as reading
from api.app import create_app
from api.dependencies import Parts
from api.errors import ChatUnanswered, Interrupted
from api.marks import Mark
from api.streaming import Ended, TextPiece, follow
from penstock.errors import PromptError
from penstock.ids import new_id
from storage import leases
from storage.database import Database
from storage.records import Batch, Outcome
from storage.states import Lane
from tests.contract.conftest import CONFIG
from tests.support import jobs
from workers.pieces import Piece, encode, stream_key
from workers.queues import WakeUps

T = TypeVar("T")

FIRST, SECOND = (1, 1), (2, 1)


@dataclass
class Chat:
    """A stored chat, and what a worker would do for it."""

    database: Database
    redis: Redis
    batch: Batch

    def publish(self, text: str, offset: int, attempt: tuple[int, int] = FIRST) -> None:
        fields = encode(Piece(attempt, offset, text))
        self.redis.xadd(stream_key("test:", self.batch.id), fields)

    def end(self, text: str | None) -> None:
        (shard,) = jobs.claim(self.database, lane=Lane.EXPRESS)
        jobs.admit(self.database, shard)
        code = None if text is not None else PromptError.ENGINE.value
        outcome = Outcome(0, text, None if code else "stop", 3, 2, code, code)
        with self.database.begin() as conn:
            leases.commit(conn, shard.id, shard.epoch, [outcome], jobs.LEASE)


@pytest.fixture
def redis(redis_socket: Path) -> Iterator[Redis]:
    with Redis(unix_socket_path=str(redis_socket)) as client:
        yield client


@pytest.fixture
def chat(database: Database, redis: Redis) -> Chat:
    params = {"max_tokens": 8, "stream": True}
    batch = jobs.store(database, id=new_id("chat"), kind="chat", lane=Lane.EXPRESS, params=params)
    return Chat(database, redis, batch)


class Run(Protocol[T]):
    def __call__(self, work: Callable[[Parts], Awaitable[T]], **limits: object) -> T: ...


@pytest.fixture
def run(database: Database, wake_ups: WakeUps) -> Run[T]:
    """Runs a coroutine with the parts of an application that serves nobody else."""

    def run(work: Callable[[Parts], Awaitable[T]], **limits: object) -> T:
        async def main() -> T:
            config = replace(CONFIG, **limits)  # type: ignore[arg-type]
            app = create_app(config, database, wake_ups)
            async with app.router.lifespan_context(app):
                return await work(app.state.parts)

        return asyncio.run(main())

    return run


async def _next(stream: AsyncIterator[TextPiece | Ended]) -> TextPiece | Ended:
    async with asyncio.timeout(20):
        return await anext(stream)


async def _rest(stream: AsyncIterator[TextPiece | Ended]) -> tuple[str, Ended]:
    text = ""
    while isinstance(found := await _next(stream), TextPiece):
        text += found.text
    return text, found


def test_text_comes_before_the_outcome_and_what_was_lost_comes_with_it(
    chat: Chat, run: Run[None]
) -> None:
    async def work(parts: Parts) -> None:
        stream = follow(parts, chat.batch)
        chat.publish("one ", 0)
        assert await _next(stream) == TextPiece("one ", 0)
        chat.publish("two ", 4)
        assert await _next(stream) == TextPiece("two ", 4)
        chat.publish("four ", 14)  # `three ` was dropped on the way
        chat.end("one two three four five")
        text, ended = await _rest(stream)
        assert text == "three four five"
        assert (ended.row.text, ended.detail) == ("one two three four five", None)

    run(work)


def test_a_second_run_that_says_the_same_is_not_noticed(chat: Chat, run: Run[None]) -> None:
    async def work(parts: Parts) -> None:
        stream = follow(parts, chat.batch)
        chat.publish("one two", 0)
        await _next(stream)
        for offset, text in ((0, "one"), (3, " two thr"), (11, "ee")):
            chat.publish(text, offset, SECOND)
        chat.publish(" of the first, which is not dead yet", 7, FIRST)
        assert await _next(stream) == TextPiece(" three", 7)
        chat.end("one two three")
        assert (await _rest(stream))[0] == ""

    run(work)


def test_a_second_run_that_says_something_else_ends_the_stream(chat: Chat, run: Run[None]) -> None:
    async def work(parts: Parts) -> None:
        stream = follow(parts, chat.batch)
        chat.publish("one two", 0)
        await _next(stream)
        chat.publish("one too many", 0, SECOND)
        with pytest.raises(Interrupted) as caught:
            await _next(stream)
        assert caught.value.request_id == chat.batch.id

    run(work)


@pytest.mark.parametrize("outcome", ["one too many", "on"])
def test_an_outcome_that_says_something_else_ends_the_stream(
    chat: Chat, run: Run[None], outcome: str
) -> None:
    async def work(parts: Parts) -> None:
        stream = follow(parts, chat.batch)
        chat.publish("one two", 0)
        await _next(stream)
        chat.end(outcome)
        with pytest.raises(Interrupted):
            await _next(stream)

    run(work)


def test_who_comes_back_gets_the_rest_and_only_of_the_same_text(chat: Chat, run: Run[None]) -> None:
    text = "one two three"
    mark = Mark().after(text[:6])

    async def work(parts: Parts) -> None:
        stream = follow(parts, chat.batch, offset=6, check=mark.check)
        for offset in (0, 4, 8):
            chat.publish(text[offset : offset + 4], offset)
        found = await _next(stream)
        assert isinstance(found, TextPiece)
        assert (found.offset, text[6:].startswith(found.text)) == (6, True)
        chat.end(text)
        assert found.text + (await _rest(stream))[0] == text[6:]
        # Without the checksum as well, and long after Redis has forgotten it.
        chat.redis.flushall()
        assert (await _rest(follow(parts, chat.batch, offset=6)))[0] == text[6:]
        with pytest.raises(Interrupted):
            await _next(follow(parts, chat.batch, offset=6, check=7))
        with pytest.raises(Interrupted):
            await _next(follow(parts, chat.batch, offset=60))

    run(work)


def test_a_slow_reader_loses_nothing_and_a_late_one_begins_at_the_beginning(
    chat: Chat, run: Run[None]
) -> None:
    words = [f"word{number} " for number in range(3 * reading.PAGE)]
    text = "".join(words)

    async def work(parts: Parts) -> None:
        slow = follow(parts, chat.batch)
        offset = 0
        for word in words[: reading.PAGE // 2]:
            chat.publish(word, offset)
            offset += len(word)
        first = await _next(slow)
        assert isinstance(first, TextPiece)
        late = follow(parts, chat.batch)
        begun = await _next(late)
        assert isinstance(begun, TextPiece) and begun.offset == 0
        for word in words[reading.PAGE // 2 :]:
            chat.publish(word, offset)
            offset += len(word)
        heard = begun.text
        while len(heard) < len(text):
            piece = await _next(late)
            assert isinstance(piece, TextPiece)
            heard += piece.text
        missed = first.text
        while len(missed) < len(text):
            piece = await _next(slow)
            assert isinstance(piece, TextPiece)
            missed += piece.text
        assert heard == missed == text
        await slow.aclose()
        await late.aclose()

    run(work)


def test_forged_entries_are_not_read(chat: Chat, run: Run[None]) -> None:
    async def work(parts: Parts) -> None:
        stream = follow(parts, chat.batch)
        chat.redis.xadd(stream_key("test:", chat.batch.id), {"t": "no place"})
        chat.publish("one", 0)
        assert await _next(stream) == TextPiece("one", 0)
        await stream.aclose()

    run(work)


def test_the_reader_outlives_whatever_the_client_raises(
    chat: Chat, run: Run[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(parts: Parts) -> None:
        with monkeypatch.context() as patched:
            failed = asyncio.Event()

            async def fail(*args: object, **options: object) -> None:
                failed.set()
                raise ValueError("not what it promises")

            patched.setattr(parts.pieces.client, "xread", fail)
            stream = follow(parts, chat.batch)
            waiting = asyncio.create_task(_next(stream))
            await failed.wait()
        chat.publish("one", 0)
        assert await waiting == TextPiece("one", 0)
        await stream.aclose()

    run(work)


def test_a_failed_prompt_ends_with_its_row(chat: Chat, run: Run[None]) -> None:
    async def work(parts: Parts) -> None:
        stream = follow(parts, chat.batch)
        chat.publish("one", 0)
        await _next(stream)
        chat.end(None)
        text, ended = await _rest(stream)
        assert (text, ended.row.error_code) == ("", "engine_error")

    run(work)


def test_nothing_for_too_long_is_no_answer(chat: Chat, run: Run[None]) -> None:
    async def work(parts: Parts) -> None:
        with pytest.raises(ChatUnanswered) as caught:
            await _next(follow(parts, chat.batch))
        assert caught.value.request_id == chat.batch.id

    run(work, chat_timeout=0.3)


def test_a_process_that_ends_lets_its_followers_go(chat: Chat, run: Run[None]) -> None:
    async def work(parts: Parts) -> None:
        stream = follow(parts, chat.batch)
        waiting = asyncio.create_task(_next(stream))
        await asyncio.sleep(0)
        parts.waiters.release()
        with pytest.raises(ChatUnanswered):
            await waiting

    run(work)


@pytest.mark.parametrize("over", [False, True])
def test_who_is_sent_away_by_a_process_that_ends_is_counted_no_longer(
    chat: Chat, run: Run[None], over: bool
) -> None:
    followers = f"test:followers:{chat.batch.id}"

    async def work(parts: Parts) -> None:
        async with parts.departures.following(parts, chat.batch) as presence:
            presence.over = over  # who has a way of its own to leave is sent away as well
            assert chat.redis.get(followers) == b"1"
            parts.waiters.release()

    run(work)
    assert chat.redis.get(followers) == b"0"


def test_without_redis_the_answer_comes_whole(
    database: Database, chat: Chat, tmp_path: Path
) -> None:
    nowhere = WakeUps(f"redis+socket://{tmp_path}/nothing.sock", "test:")

    async def main() -> None:
        app = create_app(CONFIG, database, nowhere)
        async with app.router.lifespan_context(app):
            stream = follow(app.state.parts, chat.batch)
            waiting = asyncio.create_task(_next(stream))
            chat.end("one two")
            assert await waiting == TextPiece("one two", 0)
            assert (await _rest(stream))[0] == ""

    asyncio.run(main())
    nowhere.close()
