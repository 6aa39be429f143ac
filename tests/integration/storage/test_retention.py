"""What retention removes, in portions, and what it leaves."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from storage import conversations, intake, leases, lifecycle, overview, reading, retention
from storage.database import Database
from storage.records import Batch
from storage.states import BatchStatus, Lane
from storage.tables import SHARD_SIZE
from tests.support import jobs
from tests.support.waiting import until

HOUR = 3600.0
TABLES = ("batches", "shards", "requests", "results", "messages", "conversations")


def _age(database: Database, *batch_ids: str) -> None:
    """Let them have finished two hours ago, and their conversations have been silent since."""
    with database.begin() as conn:
        conn.execute(
            text("UPDATE batches SET finished_at = now() - interval '2h' WHERE id = ANY(:ids)"),
            {"ids": list(batch_ids)},
        )
        conn.execute(
            text(
                "UPDATE conversations c SET updated_at = now() - interval '2h' FROM messages m"
                " WHERE m.conversation_id = c.id AND m.batch_id = ANY(:ids)"
            ),
            {"ids": list(batch_ids)},
        )


def _finished(database: Database, prompts: int = 1, *, key: str | None = None) -> Batch:
    batch = jobs.store(database, prompts, idempotency_key=key)
    jobs.run_all(database)
    with database.begin() as conn:
        assert lifecycle.finalize(conn) == [batch.id]
    return batch


def _turn(database: Database, conversation: str) -> Batch:
    """One answered turn of a chat."""
    new = jobs.new_batch(kind="chat", lane=Lane.EXPRESS)
    with database.begin() as conn:
        conversations.open_turn(
            conn, jobs.OWNER, conversation, reset=False, batch_id=new.id, message="secret"
        )
        batch = intake.create_batch(conn, new, jobs.prompts(1))
    jobs.run_all(database)
    with database.begin() as conn:
        lifecycle.finalize(conn)
    return batch


def _delete(database: Database, **limits: int) -> int:
    with database.begin() as conn:
        return retention.delete_old(conn, HOUR, **limits)


def _counts(database: Database) -> dict[str, int]:
    with database.begin() as conn:
        return {
            table: conn.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in TABLES
        }


def test_only_old_finished_jobs_are_deleted_with_all_of_theirs(database: Database) -> None:
    old = [_finished(database, 2).id for _ in range(3)]
    fresh = _finished(database).id
    open_job = jobs.store(database).id
    _age(database, *old, open_job)  # it has not finished: `finished_at` alone must not condemn it
    with database.begin() as conn:
        conn.execute(text("UPDATE batches SET finished_at = NULL WHERE id = :id"), {"id": open_job})

    assert _delete(database, jobs=2) == 4
    assert _delete(database) == 2
    assert _delete(database) == 0

    with database.begin() as conn:
        assert {batch.id for batch in overview.list_jobs(conn, jobs.OWNER, 99)} == {fresh, open_job}
    assert _counts(database) == {
        "batches": 2,
        "shards": 2,
        "requests": 2,
        "results": 1,
        "messages": 0,
        "conversations": 0,
    }


def test_a_large_job_goes_in_portions_and_is_hidden_from_the_first_one_on(
    database: Database,
) -> None:
    batch = _finished(database, 5 * SHARD_SIZE, key="key")
    _age(database, batch.id)

    assert _delete(database, shards=2) == 2

    left = _counts(database)
    assert (left["batches"], left["requests"], left["results"]) == (
        1,
        3 * SHARD_SIZE,
        3 * SHARD_SIZE,
    )
    with database.begin() as conn:
        assert reading.get_batch(conn, jobs.OWNER, batch.id) is None
        assert overview.list_jobs(conn, jobs.OWNER, 99) == []
        assert lifecycle.retry_failed(conn, jobs.OWNER, batch.id) is None
        assert lifecycle.request_cancel(conn, jobs.OWNER, batch.id) is None
        assert intake.find_idempotent(conn, jobs.OWNER, "key") is None
    assert [_delete(database, shards=2) for _ in range(3)] == [2, 2, 0]
    assert set(_counts(database).values()) == {0}


def test_the_key_of_a_deleted_job_is_free_again(database: Database) -> None:
    batch = _finished(database, 3 * SHARD_SIZE, key="key")
    _age(database, batch.id)
    _delete(database, shards=1)

    assert jobs.store(database, 1, idempotency_key="key").id != batch.id


def test_a_retry_that_waited_for_retention_finds_no_job(database: Database) -> None:
    batch = jobs.store(database, 1)
    (shard,) = jobs.claim(database)
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [jobs.failure(0)], jobs.LEASE)
        lifecycle.finalize(conn)
    _age(database, batch.id)
    answers: list[Batch | None] = []

    def retry() -> None:
        with database.begin() as conn:
            answers.append(lifecycle.retry_failed(conn, jobs.OWNER, batch.id))

    thread = threading.Thread(target=retry)
    with database.begin() as conn:
        assert retention.delete_old(conn, HOUR, shards=0) == 0  # hidden, and nothing deleted yet
        thread.start()
        until("the retry waits", lambda: _waiters(database) == 1)
    thread.join(timeout=30)

    assert answers == [None]
    with database.begin() as conn:
        status = conn.execute(text("SELECT status FROM batches")).scalar_one()
    assert status == BatchStatus.FAILED


def test_a_job_that_is_being_tried_again_is_left(database: Database) -> None:
    batch = jobs.store(database, 1)
    (shard,) = jobs.claim(database)
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [jobs.failure(0)], jobs.LEASE)
        lifecycle.finalize(conn)
    _age(database, batch.id)

    with database.begin() as conn:
        lifecycle.retry_failed(conn, jobs.OWNER, batch.id)
        assert _delete(database) == 0

    assert jobs.run_all(database) == 1


def test_what_was_said_goes_with_its_turn_and_an_emptied_conversation_too(
    database: Database,
) -> None:
    first, second = _turn(database, "long"), _turn(database, "long")
    only = _turn(database, "short")
    _age(database, first.id, only.id)

    while _delete(database):
        pass

    assert _counts(database) == {**dict.fromkeys(TABLES, 1)}
    with database.begin() as conn:
        assert conn.execute(text("SELECT id FROM conversations")).scalar_one() == "long"
        assert conn.execute(text("SELECT batch_id FROM messages")).scalar_one() == second.id


@pytest.mark.parametrize("committed", [True, False])
def test_a_conversation_that_goes_on_at_this_moment_stays(
    database: Database, committed: bool
) -> None:
    old = _turn(database, "chat")
    _age(database, old.id)
    new = jobs.new_batch(kind="chat", lane=Lane.EXPRESS)

    with database.begin() as conn:
        conversations.open_turn(
            conn, jobs.OWNER, "chat", reset=False, batch_id=new.id, message="go on"
        )
        intake.create_batch(conn, new, jobs.prompts(1))
        if committed:
            conn.commit()
        assert _delete(database) == 2

    left = _counts(database)
    assert (left["conversations"], left["messages"], left["batches"]) == (1, 1, 1)


def _waiters(database: Database) -> int:
    with database.begin() as conn:
        query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return int(conn.execute(query).scalar_one())
