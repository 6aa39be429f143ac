"""Conversations are the user's messages, and the answers that their batches got."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import exc, text

from penstock.errors import InvalidRequest
from storage import conversations, leases
from storage.database import Database
from storage.records import ClaimedShard
from storage.states import Lane
from tests.support import jobs
from tests.support.talk import said, say


def _claim(database: Database) -> ClaimedShard:
    (shard,) = jobs.claim(database, lane=Lane.EXPRESS)
    return shard


def _contents(shard: ClaimedShard) -> list[str]:
    """What the user said before, as the claim knows it."""
    return [content for role, content in shard.requests[0].history if role == "user"]


def test_a_turn_is_remembered_with_its_answer(database: Database) -> None:
    conversation, _ = say(database, None, "hello")
    assert said(database, conversation) == [("user", "hello")]

    jobs.run_all(database)
    jobs.end(database)
    assert say(database, conversation, "and now?")[0] == conversation

    assert _claim(database).requests[0].history == (("user", "hello"), ("assistant", "answer 0"))
    assert said(database, conversation)[:2] == [("user", "hello"), ("assistant", "answer 0")]
    assert conversation.startswith("conv_")


def test_a_turn_that_failed_is_not_sent_along(database: Database) -> None:
    conversation, _ = say(database, "mine", "first")
    (shard,) = jobs.claim(database, lane=Lane.EXPRESS)
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [jobs.failure(0)], jobs.LEASE)
    jobs.end(database)
    say(database, "mine", "second")
    jobs.run_all(database)
    jobs.end(database)
    say(database, "mine", "third")

    assert conversation == "mine"
    assert _contents(_claim(database)) == ["second"]


def test_the_last_turns_are_sent_oldest_first_and_the_others_counted(database: Database) -> None:
    for message in ("one", "two", "three"):
        say(database, "mine", message)
        jobs.run_all(database)
        jobs.end(database)
    say(database, "mine", "four", history=2)

    shard = _claim(database)

    assert _contents(shard) == ["two", "three"]
    assert shard.requests[0].omitted == 1


def test_no_turn_is_sent_where_none_is_asked_for(database: Database) -> None:
    say(database, "mine", "one")
    jobs.run_all(database)
    jobs.end(database)
    say(database, "mine", "two", history=0)

    request = _claim(database).requests[0]
    assert (request.history, request.omitted) == ((), 0)


def test_a_reset_forgets_the_earlier_turns(database: Database) -> None:
    say(database, "mine", "before")
    jobs.run_all(database)
    jobs.end(database)
    say(database, "mine", "after", reset=True)

    assert _contents(_claim(database)) == []
    assert said(database, "mine") == [("user", "after")]


def test_the_same_name_is_another_conversation_for_another_owner(database: Database) -> None:
    say(database, "mine", "hello")

    with database.begin() as conn:
        assert conversations.get(conn, "somebody", "mine") is None
        assert conversations.page(conn, "somebody", 9) == []
        assert conversations.last_turns(conn, "somebody", "mine", 9) == []


def test_turns_at_once_of_a_new_conversation_are_all_kept_in_one_order(database: Database) -> None:
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda number: say(database, "mine", str(number)), range(5)))

    with database.begin() as conn:
        turns = conversations.last_turns(conn, jobs.OWNER, "mine", 9)
        found = conversations.get(conn, jobs.OWNER, "mine")
    assert {turn.message for turn in turns} == set("01234")
    times = [turn.said_at for turn in turns]
    assert times == sorted(set(times))
    assert found is not None and found.updated_at == times[-1]


def test_a_turn_without_its_batch_is_refused(database: Database) -> None:
    with pytest.raises(exc.IntegrityError), database.begin() as conn:
        conversations.open_turn(
            conn, jobs.OWNER, "mine", reset=False, batch_id="batch_none", message="hello"
        )


def test_a_turn_goes_with_its_batch(database: Database) -> None:
    _, batch = say(database, "mine", "hello")

    with database.begin() as conn:
        conn.execute(text("DELETE FROM batches WHERE id = :id"), {"id": batch.id})
        assert conn.execute(text("SELECT count(*) FROM messages")).scalar_one() == 0


def test_a_message_that_cannot_be_stored_is_refused_by_name(database: Database) -> None:
    with pytest.raises(InvalidRequest) as raised:
        say(database, "mine", "a\0b")

    assert raised.value.param == "message"


def test_a_page_of_large_turns_is_cut_and_the_next_one_goes_on(database: Database) -> None:
    large = "x" * 5_000_000
    for number in range(3):
        say(database, "mine", f"{number}{large}")

    with database.begin() as conn:
        last = conversations.last_turns(conn, jobs.OWNER, "mine", 9)
        before = (last[0].said_at, last[0].id)
        first = conversations.last_turns(conn, jobs.OWNER, "mine", 9, before)

    assert [turn.message[0] for turn in (*first, *last)] == ["0", "1", "2"]
    assert len(last) == 2


def test_pages_of_conversations_hold_each_once(database: Database) -> None:
    for name in "abcde":
        say(database, name, "hi")

    names = []
    before = None
    with database.begin() as conn:
        while found := conversations.page(conn, jobs.OWNER, 2, before):
            names += [one.id for one in found]
            before = (found[-1].updated_at, found[-1].id)

    assert names == ["e", "d", "c", "b", "a"]
