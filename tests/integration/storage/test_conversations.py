"""Conversations are the user's messages, and the answers that their batches got."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import exc, text

from penstock.errors import InvalidRequest
from storage import conversations, intake, leases
from storage.database import Database
from storage.records import Batch, NewPrompt
from storage.states import Lane
from tests.support import jobs


def _say(
    database: Database, conversation: str | None, message: str, *, reset: bool = False
) -> tuple[str, Batch]:
    batch = jobs.new_batch(kind="chat", lane=Lane.EXPRESS)
    with database.begin() as conn:
        opened = conversations.open_turn(
            conn, jobs.OWNER, conversation, reset=reset, batch_id=batch.id, message=message
        )
        return opened, intake.create_batch(conn, batch, [NewPrompt((("user", message),))])


def _history(
    database: Database, conversation: str, turns: int = 10, owner: str = jobs.OWNER
) -> tuple[tuple[str, str], ...]:
    with database.begin() as conn:
        return conversations.history(conn, owner, conversation, turns)


def test_a_turn_is_remembered_with_its_answer(database: Database) -> None:
    conversation, _ = _say(database, None, "hello")
    assert _history(database, conversation) == ()

    jobs.run_all(database)
    assert _say(database, conversation, "and now?")[0] == conversation

    assert _history(database, conversation) == (("user", "hello"), ("assistant", "answer 0"))
    assert conversation.startswith("conv_")


def test_a_turn_that_failed_is_left_out(database: Database) -> None:
    conversation, _ = _say(database, "mine", "first")
    (shard,) = jobs.claim(database, lane=Lane.EXPRESS)
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [jobs.failure(0)], jobs.LEASE)
    _say(database, "mine", "second")
    jobs.run_all(database)

    assert conversation == "mine"
    assert _history(database, "mine") == (("user", "second"), ("assistant", "answer 0"))


def test_only_the_last_turns_are_given_oldest_first(database: Database) -> None:
    for message in ("one", "two", "three"):
        _say(database, "mine", message)
    jobs.run_all(database)

    assert [content for role, content in _history(database, "mine", 2) if role == "user"] == [
        "two",
        "three",
    ]
    assert _history(database, "mine", 0) == ()


def test_a_reset_forgets_the_earlier_turns(database: Database) -> None:
    _say(database, "mine", "before")
    _say(database, "mine", "after", reset=True)
    jobs.run_all(database)

    assert _history(database, "mine") == (("user", "after"), ("assistant", "answer 0"))


def test_the_same_name_is_another_conversation_for_another_owner(database: Database) -> None:
    _say(database, "mine", "hello")
    jobs.run_all(database)

    assert _history(database, "mine", owner="somebody") == ()


def test_turns_at_once_of_a_new_conversation_are_all_kept(database: Database) -> None:
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda number: _say(database, "mine", str(number)), range(5)))
    jobs.run_all(database)

    said = {content for role, content in _history(database, "mine") if role == "user"}
    assert said == set("01234")


def test_a_turn_without_its_batch_is_refused(database: Database) -> None:
    with pytest.raises(exc.IntegrityError), database.begin() as conn:
        conversations.open_turn(
            conn, jobs.OWNER, "mine", reset=False, batch_id="batch_none", message="hello"
        )


def test_a_turn_goes_with_its_batch(database: Database) -> None:
    _, batch = _say(database, "mine", "hello")

    with database.begin() as conn:
        conn.execute(text("DELETE FROM batches WHERE id = :id"), {"id": batch.id})
        assert conn.execute(text("SELECT count(*) FROM messages")).scalar_one() == 0


def test_a_message_that_cannot_be_stored_is_refused_by_name(database: Database) -> None:
    with pytest.raises(InvalidRequest) as raised:
        _say(database, "mine", "a\0b")

    assert raised.value.param == "message"
