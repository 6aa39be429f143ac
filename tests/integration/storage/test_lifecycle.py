"""How jobs end: cancelled, expired, finished, tried again, deleted."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

from penstock.errors import Conflict, PromptError
from storage import intake, leases, lifecycle, reading
from storage.database import DONE_CHANNEL, Database
from storage.records import Batch
from storage.states import BatchStatus
from storage.tables import SHARD_SIZE
from tests.support import jobs


def _get(database: Database, batch_id: str) -> Batch:
    with database.begin() as conn:
        batch = reading.get_batch(conn, jobs.OWNER, batch_id)
    assert batch is not None
    return batch


def _cancel(database: Database, batch_id: str, owner: str = jobs.OWNER) -> Batch | None:
    with database.begin() as conn:
        return lifecycle.request_cancel(conn, owner, batch_id)


def _close_and_finalize(database: Database) -> list[str]:
    with database.begin() as conn:
        while lifecycle.close_open(conn, limit=1):
            pass
        return lifecycle.finalize(conn)


def _retry(database: Database, batch_id: str) -> Batch | None:
    with database.begin() as conn:
        return lifecycle.retry_failed(conn, jobs.OWNER, batch_id)


def _codes(database: Database, batch_id: str) -> dict[int, str | None]:
    with database.begin() as conn:
        return {row.position: row.error_code for row in reading.results(conn, batch_id, 0, 1_000)}


def _finished(database: Database, good: int, failed: int) -> Batch:
    """A finished job whose first prompts succeeded."""
    batch = jobs.store(database, good + failed)
    while claimed := jobs.claim(database):
        (shard,) = claimed
        jobs.admit(database, shard)
        outcomes = [
            jobs.answer(request.position)
            if request.position < good
            else jobs.failure(request.position)
            for request in shard.requests
        ]
        with database.begin() as conn:
            leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)
    with database.begin() as conn:
        assert lifecycle.finalize(conn) == [batch.id]
    return _get(database, batch.id)


def test_a_finished_job_is_final_and_announced_once(database: Database) -> None:
    batch = jobs.store(database, 2)
    jobs.run_all(database)

    with database.listen(DONE_CHANNEL) as listener:
        with database.begin() as conn:
            assert lifecycle.finalize(conn, "batch_unknown") == []
            assert lifecycle.finalize(conn, batch.id) == [batch.id]
        with database.begin() as conn:
            assert lifecycle.finalize(conn, batch.id) == []
        assert listener.wait(30) == [batch.id]

    ended = _get(database, batch.id)
    assert ended.status == BatchStatus.COMPLETED
    assert ended.started_at is not None and ended.finished_at is not None
    assert ended.created_at <= ended.started_at <= ended.finished_at <= ended.now


def test_a_job_that_still_has_open_prompts_is_not_finalized(database: Database) -> None:
    jobs.store(database, 2)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    jobs.commit(database, shard, [0])

    with database.begin() as conn:
        assert lifecycle.finalize(conn) == []


@pytest.mark.parametrize(
    ("good", "failed", "status"),
    [(2, 0, BatchStatus.COMPLETED), (1, 1, BatchStatus.COMPLETED), (0, 2, BatchStatus.FAILED)],
)
def test_one_success_makes_a_job_completed(
    database: Database, good: int, failed: int, status: BatchStatus
) -> None:
    assert _finished(database, good, failed).status == status


def test_cancelling_keeps_what_is_done_and_closes_the_rest(database: Database) -> None:
    batch = jobs.store(database, SHARD_SIZE + 2)
    (shard,) = jobs.claim(database)
    done, running = (request.position for request in shard.requests[:2])
    jobs.admit(database, shard, [done, running])
    jobs.commit(database, shard, [done])

    cancelling = _cancel(database, batch.id)
    assert cancelling is not None and cancelling.status == BatchStatus.CANCELLING
    assert _close_and_finalize(database) == [batch.id]

    ended = _get(database, batch.id)
    assert (ended.status, ended.completed, ended.failed) == (
        BatchStatus.CANCELLED,
        1,
        SHARD_SIZE + 1,
    )
    codes = _codes(database, batch.id)
    assert codes.pop(done) is None
    assert set(codes.values()) == {PromptError.CANCELLED}


def test_a_worker_learns_that_its_job_was_cancelled(database: Database) -> None:
    batch = jobs.store(database)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    _cancel(database, batch.id)
    _close_and_finalize(database)

    assert not jobs.commit(database, shard).held
    assert not jobs.admit(database, shard)
    with database.begin() as conn:
        assert leases.held(conn, [(shard.id, shard.epoch)]) == set()
        assert leases.heartbeat(conn, [(shard.id, shard.epoch)], jobs.LEASE) == set()


def test_what_finishes_between_the_request_and_the_closing_still_counts(
    database: Database,
) -> None:
    batch = jobs.store(database, 2)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    _cancel(database, batch.id)

    receipt = jobs.commit(database, shard)

    assert (receipt.stored, receipt.batch_done) == (2, True)
    _close_and_finalize(database)
    ended = _get(database, batch.id)
    assert (ended.status, ended.completed) == (BatchStatus.CANCELLED, 2)


def test_cancelling_what_is_finished_or_anothers_changes_nothing(database: Database) -> None:
    batch = _finished(database, 1, 0)

    assert _cancel(database, batch.id, owner="somebody") is None
    assert _cancel(database, "batch_unknown") is None
    assert _cancel(database, "batch_\0") is None
    again = _cancel(database, batch.id)
    assert again is not None and again.status == BatchStatus.COMPLETED


def test_an_expired_job_keeps_what_is_done(database: Database) -> None:
    batch = jobs.store(database, 3, expires_in=3600.0)
    kept = jobs.store(database, 1, expires_in=3600.0)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard, [0])
    jobs.commit(database, shard, [0])

    with database.begin() as conn:
        conn.execute(text("UPDATE batches SET expires_at = now() WHERE id = :id"), {"id": batch.id})
        assert lifecycle.expire_due(conn) == 1
        assert lifecycle.expire_due(conn) == 0
    assert _close_and_finalize(database) == [batch.id]

    ended = _get(database, batch.id)
    assert (ended.status, ended.completed, ended.failed) == (BatchStatus.EXPIRED, 1, 2)
    assert _codes(database, batch.id) == {0: None, 1: PromptError.EXPIRED, 2: PromptError.EXPIRED}
    assert _get(database, kept.id).status == BatchStatus.QUEUED


def test_an_expired_job_cannot_be_cancelled_too(database: Database) -> None:
    batch = jobs.store(database, 1, expires_in=0.0)
    with database.begin() as conn:
        lifecycle.expire_due(conn)

    ending = _cancel(database, batch.id)

    assert ending is not None and ending.status == BatchStatus.FINALIZING
    _close_and_finalize(database)
    assert _get(database, batch.id).status == BatchStatus.EXPIRED


def test_failed_prompts_are_tried_again_and_good_results_stay(database: Database) -> None:
    batch = _finished(database, good=10, failed=2 * SHARD_SIZE)

    retried = _retry(database, batch.id)

    assert retried is not None
    assert (retried.status, retried.completed, retried.failed) == (BatchStatus.QUEUED, 10, 0)
    assert (retried.finished_at, retried.started_at) == (None, None)
    assert _codes(database, batch.id) == dict.fromkeys(range(10))
    with database.begin() as conn:
        assert _ready_sizes(conn) == [SHARD_SIZE, SHARD_SIZE]
    assert jobs.run_all(database) == 2 * SHARD_SIZE
    with database.begin() as conn:
        assert lifecycle.finalize(conn) == [batch.id]
    ended = _get(database, batch.id)
    assert (ended.status, ended.completed) == (BatchStatus.COMPLETED, 10 + 2 * SHARD_SIZE)
    assert ended.prompt_tokens == 3 * ended.completed


def test_prompts_without_text_are_not_tried_again(database: Database) -> None:
    with database.begin() as conn:
        batch = intake.create_batch(conn, jobs.new_batch(), [jobs.bad_prompt()] * 2)
        lifecycle.finalize(conn)
    before = _get(database, batch.id)

    after = _retry(database, batch.id)

    assert after is not None
    assert (before.status, after.status, after.failed) == (*[BatchStatus.FAILED] * 2, 2)
    assert after.finished_at == before.finished_at


def test_a_job_that_is_not_finished_cannot_be_tried_again(database: Database) -> None:
    batch = jobs.store(database)

    with pytest.raises(Conflict):
        _retry(database, batch.id)
    assert _retry(database, "batch_unknown") is None
    assert _retry(database, "batch_\0") is None


def test_a_cancelled_job_can_be_tried_again_and_an_expired_one_gets_its_time_anew(
    database: Database,
) -> None:
    batch = jobs.store(database, 2, expires_in=1000.0)
    with database.begin() as conn:
        conn.execute(
            text(
                "UPDATE batches SET created_at = created_at - interval '1h',"
                " expires_at = expires_at - interval '1h'"
            )
        )
        lifecycle.expire_due(conn)
    _close_and_finalize(database)

    retried = _retry(database, batch.id)

    assert retried is not None and retried.expires_at is not None
    assert 990 < (retried.expires_at - retried.now).total_seconds() <= 1000
    assert jobs.run_all(database) == 2
    _close_and_finalize(database)
    assert _get(database, batch.id).status == BatchStatus.COMPLETED


def _ready_sizes(conn: Connection) -> list[int]:
    statement = "SELECT remaining FROM shards WHERE state = 'ready' ORDER BY id"
    return list(conn.execute(text(statement)).scalars())
