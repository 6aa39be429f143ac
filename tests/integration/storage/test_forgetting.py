"""Conversations end at their owner's word, or when they were silent too long; nothing else does."""

from __future__ import annotations

import datetime as dt

import pytest
from sqlalchemy import text

from storage import conversations, forgetting, leases, lifecycle, reading, retention, transcripts
from storage.database import Database
from storage.forgetting import TimeToLive
from storage.records import ClaimedShard
from storage.states import Lane
from tests.support import jobs
from tests.support.talk import say
from tests.support.webhooks import add_endpoint

HOUR = 3600.0
TABLES = ("batches", "requests", "results", "messages", "conversations")


def _talk(database: Database, name: str, turns: int = 1, owner: str = jobs.OWNER) -> str:
    """An answered conversation; the batch of its last turn."""
    for number in range(turns):
        _, batch = say(database, name, f"secret {number}", owner=owner)
        jobs.run_all(database)
        jobs.end(database)
    return batch.id


def _silence(database: Database, hours: float, *names: str) -> None:
    with database.begin() as conn:
        conn.execute(
            text(
                "UPDATE conversations SET updated_at = now() - make_interval(secs => :age)"
                " WHERE id = ANY(:names)"
            ),
            {"age": hours * HOUR, "names": list(names)},
        )


def _names(database: Database, owner: str = jobs.OWNER) -> list[str]:
    with database.begin() as conn:
        return sorted(one.id for one in conversations.page(conn, owner, 99))


def _expire(database: Database, ttl: TimeToLive, **limits: int) -> int:
    with database.begin() as conn:
        return forgetting.delete_silent(conn, ttl, **limits)


def _claim(database: Database) -> ClaimedShard:
    (shard,) = jobs.claim(database, lane=Lane.EXPRESS)
    jobs.admit(database, shard)
    return shard


def _retain(database: Database) -> None:
    with database.begin() as conn:
        while retention.delete_old(conn, 30 * 24 * HOUR):
            pass


def _counts(database: Database) -> dict[str, int]:
    with database.begin() as conn:
        return {
            table: conn.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in TABLES
        }


def test_each_owner_has_its_time_and_all_others_theirs(database: Database) -> None:
    for owner in ("brief", "long", "other"):
        for name in ("fresh", "old", "older"):
            _talk(database, name, owner=owner)
    _silence(database, 2, "old")
    _silence(database, 5, "older")

    while _expire(database, TimeToLive(4 * HOUR, {"brief": HOUR, "long": 9 * HOUR}), limit=1):
        pass

    assert _names(database, "brief") == ["fresh"]
    assert _names(database, "long") == ["fresh", "old", "older"]
    assert _names(database, "other") == ["fresh", "old"]


def test_a_long_conversation_goes_in_portions_and_with_its_answers(database: Database) -> None:
    batch = _talk(database, "long", turns=5)
    _silence(database, 2, "long")

    gone = [_expire(database, TimeToLive(HOUR), turns=2) for _ in range(4)]

    assert gone == [2, 2, 2, 0]  # the last turn, and with it the conversation
    with database.begin() as conn:
        assert reading.get_batch(conn, jobs.OWNER, batch) is None
        while retention.delete_old(conn, 30 * 24 * HOUR):
            pass
    assert _counts(database) == dict.fromkeys(TABLES, 0)


def test_one_whose_turn_is_open_is_not_silent(database: Database) -> None:
    say(database, "waits", "hello")
    _silence(database, 99, "waits")

    assert _expire(database, TimeToLive(HOUR)) == 0


def test_one_that_was_emptied_goes_too(database: Database) -> None:
    with database.begin() as conn:
        conn.execute(text("INSERT INTO conversations (owner, id) VALUES ('default', 'empty')"))
    _silence(database, 2, "empty")

    assert _expire(database, TimeToLive(HOUR)) == 1
    assert _names(database) == []


def test_an_imported_one_goes_like_any_other(database: Database) -> None:
    then = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
    turn = transcripts.SaidTurn("default", "old", then, then, "hello", "hi", then)
    assert transcripts.store(database, [turn]) == 1

    assert _expire(database, TimeToLive(HOUR)) == 2


def test_what_an_owner_deletes_is_gone_with_its_answers_at_the_next_retention(
    database: Database,
) -> None:
    batch = _talk(database, "mine", turns=2)
    _talk(database, "mine", owner="somebody")

    with database.begin() as conn:
        assert not forgetting.delete(conn, jobs.OWNER, "unknown")
        assert forgetting.delete(conn, jobs.OWNER, "mine")

    assert _names(database) == []
    with database.begin() as conn:
        assert reading.get_batch(conn, jobs.OWNER, batch) is None
        while retention.delete_old(conn, 30 * 24 * HOUR):
            pass
    assert _counts(database) == dict.fromkeys(TABLES, 1)
    assert _names(database, "somebody") == ["mine"]


@pytest.mark.parametrize("place", ["queued", "running", "answered"])
def test_a_turn_that_has_not_ended_is_hidden_and_gone_when_it_has(
    database: Database, place: str
) -> None:
    _, batch = say(database, "mine", "secret")
    if place != "queued":
        shard = _claim(database)
    if place == "answered":
        jobs.commit(database, shard)

    with database.begin() as conn:
        assert forgetting.delete(conn, jobs.OWNER, "mine")
        assert reading.get_batch(conn, jobs.OWNER, batch.id) is None
        lifecycle.close_open(conn)
    assert jobs.end(database) == [batch.id]
    _retain(database)

    assert _counts(database) == dict.fromkeys(TABLES, 0)


def test_an_end_that_nobody_is_to_see_is_told_to_nobody(database: Database) -> None:
    add_endpoint(database)
    _, batch = say(database, "mine", "secret")
    with database.begin() as conn:
        conn.execute(text("UPDATE batches SET callback_url = 'https://example.org/'"))
        forgetting.delete(conn, jobs.OWNER, "mine")
        lifecycle.close_open(conn)

    assert jobs.end(database) == [batch.id]

    with database.begin() as conn:
        assert conn.execute(text("SELECT count(*) FROM webhook_deliveries")).scalar_one() == 0


def test_a_turn_that_is_tried_again_goes_with_its_silent_conversation(database: Database) -> None:
    _, batch = say(database, "mine", "secret")
    shard = _claim(database)
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [jobs.failure(0)], jobs.LEASE)
    jobs.end(database)
    with database.begin() as conn:
        assert lifecycle.retry_failed(conn, jobs.OWNER, batch.id) is not None
    _silence(database, 2, "mine")

    assert _expire(database, TimeToLive(HOUR)) == 2
    with database.begin() as conn:
        assert lifecycle.close_open(conn) == 1
    jobs.end(database)
    _retain(database)

    assert _counts(database) == dict.fromkeys(TABLES, 0)


def test_a_reset_takes_what_was_answered_before_it(database: Database) -> None:
    before = _talk(database, "mine")
    _, batch = say(database, "mine", "after", reset=True)

    with database.begin() as conn:
        assert reading.get_batch(conn, jobs.OWNER, before) is None
        assert reading.get_batch(conn, jobs.OWNER, batch.id) is not None
    _retain(database)

    left = _counts(database)
    assert left == dict.fromkeys(TABLES, 1) | {"results": 0}


def test_only_what_was_said_of_late_is_active(database: Database) -> None:
    _talk(database, "now")
    _talk(database, "now", owner="somebody")
    _talk(database, "silent")
    _silence(database, 2, "silent")

    with database.begin() as conn:
        assert conversations.active_count(conn) == 2
