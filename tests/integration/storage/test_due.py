"""What the clock of the queue is told to do: nothing is done that is not due, and all that is."""

from __future__ import annotations

from sqlalchemy import text

from storage import due, lifecycle, turns
from storage.database import Database
from storage.due import Due
from tests.support import jobs
from tests.support.talk import say

NOTHING = Due(expiry=False, ending=False, turns=False, claims=False)


def _look(database: Database) -> Due:
    with database.begin() as conn:
        return due.look(conn)


def test_of_an_empty_queue_nothing_is_due(database: Database) -> None:
    assert _look(database) == NOTHING


def test_a_job_is_to_be_claimed_then_ended_and_then_nothing(database: Database) -> None:
    jobs.store(database, 2)
    queued = _look(database)
    jobs.run_all(database)
    done = _look(database)
    jobs.end(database)

    assert queued == Due(expiry=False, ending=False, turns=False, claims=True)
    assert done == Due(expiry=False, ending=True, turns=False, claims=False)
    assert _look(database) == NOTHING


def test_a_cancelled_job_is_ending_until_nothing_of_it_is_open(database: Database) -> None:
    batch = jobs.store(database, 2)
    with database.begin() as conn:
        lifecycle.request_cancel(conn, jobs.OWNER, batch.id)
    assert _look(database).ending

    with database.begin() as conn:
        assert lifecycle.close_open(conn) == 1
    assert _look(database).ending

    assert jobs.end(database) == [batch.id]
    assert _look(database) == NOTHING


def test_a_job_has_expired_when_its_time_is_over_and_not_before(database: Database) -> None:
    jobs.store(database, 1, expires_in=60.0)
    jobs.store(database, 1)
    assert not _look(database).expiry

    with database.begin() as conn:
        conn.execute(text("UPDATE batches SET expires_at = expires_at - interval '2min'"))
    assert _look(database).expiry

    with database.begin() as conn:
        assert lifecycle.expire_due(conn) == 1
    found = _look(database)
    assert (found.expiry, found.ending) == (False, True)


def test_a_turn_is_open_until_it_is_answered(database: Database) -> None:
    say(database, "talk", "hello")
    assert _look(database) == Due(expiry=False, ending=False, turns=True, claims=True)

    jobs.run_all(database)
    jobs.end(database)
    with database.begin() as conn:
        turns.settle(conn)
    assert _look(database) == NOTHING
