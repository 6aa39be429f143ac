"""Claim, admit, heartbeat and commit: who holds a shard, and what a lost one can still do."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from storage import leases, lifecycle, reading
from storage.database import DONE_CHANNEL, Database
from storage.records import ClaimedShard, CommitReceipt, Outcome
from storage.states import BatchStatus, Lane
from storage.tables import SHARD_SIZE
from tests.support import jobs

LOST = CommitReceipt(held=False, stored=0, shard_done=False, batch_done=False)


def _status(database: Database, batch_id: str) -> BatchStatus:
    with database.begin() as conn:
        batch = reading.get_batch(conn, jobs.OWNER, batch_id)
    assert batch is not None
    return batch.status


def _states(database: Database) -> list[tuple[int, str, int]]:
    with database.begin() as conn:
        rows = conn.execute(
            text("SELECT position, state, attempts FROM requests ORDER BY batch_id, position")
        )
        return [(row.position, row.state, row.attempts) for row in rows]


def _lose(database: Database, shard: ClaimedShard) -> None:
    """The lease runs out and the shard is given to somebody else."""
    with database.begin() as conn:
        conn.execute(text("UPDATE shards SET lease_until = now() - interval '1s'"))
        assert leases.reap(conn) == 1
    (taken,) = jobs.claim(database, "other")
    assert (taken.id, taken.epoch) == (shard.id, shard.epoch + 2)


def test_higher_priority_is_claimed_first_then_the_older_job(database: Database) -> None:
    expected = [jobs.store(database, priority=priority).id for priority in (0, 0, 5, -5)]

    claimed = [shard.batch_id for _ in range(4) for shard in jobs.claim(database)]

    assert claimed == [expected[2], expected[0], expected[1], expected[3]]
    assert jobs.claim(database) == []


def test_a_claim_of_several_keeps_the_order(database: Database) -> None:
    low = jobs.store(database)
    high = jobs.store(database, SHARD_SIZE + 1, priority=1)

    claimed = jobs.claim(database, limit=5)

    assert [shard.batch_id for shard in claimed] == [high.id, high.id, low.id]
    assert sum(len(shard.requests) for shard in claimed[:2]) == SHARD_SIZE + 1


def test_lanes_and_models_do_not_mix(database: Database) -> None:
    jobs.store(database, lane=Lane.EXPRESS)
    jobs.store(database, model="another")

    assert jobs.claim(database) == []
    assert len(jobs.claim(database, lane=Lane.EXPRESS)) == 1


def test_the_first_claim_starts_the_job_and_the_second_does_not(database: Database) -> None:
    batch = jobs.store(database, SHARD_SIZE + 1)
    assert batch.started_at is None

    jobs.claim(database)
    with database.begin() as conn:
        started = reading.get_batch(conn, jobs.OWNER, batch.id)
    jobs.claim(database)
    with database.begin() as conn:
        later = reading.get_batch(conn, jobs.OWNER, batch.id)

    assert started is not None and later is not None
    assert started.status == BatchStatus.IN_PROGRESS
    assert started.started_at is not None
    assert later.started_at == started.started_at


@pytest.mark.parametrize("end", ["cancel", "expire"])
def test_a_job_that_is_ending_is_not_claimed(database: Database, end: str) -> None:
    batch = jobs.store(database, expires_in=0.0)
    with database.begin() as conn:
        if end == "cancel":
            lifecycle.request_cancel(conn, jobs.OWNER, batch.id)
        else:
            assert lifecycle.expire_due(conn) == 1

    assert jobs.claim(database) == []
    with database.begin() as conn:
        assert reading.ready_lanes(conn, 5) == []


def test_admission_counts_an_attempt_once(database: Database) -> None:
    jobs.store(database, 3)
    (shard,) = jobs.claim(database)

    assert jobs.admit(database, shard, [0, 2])
    assert jobs.admit(database, shard, [0, 2])

    assert _states(database) == [(0, "running", 1), (1, "pending", 0), (2, "running", 1)]


def test_positions_of_another_shard_are_left_alone(database: Database) -> None:
    jobs.store(database, SHARD_SIZE + 1)
    mine, other = jobs.claim(database, limit=2)
    jobs.admit(database, other)
    foreign = other.requests[0].position

    assert jobs.admit(database, mine, [foreign])
    receipt = jobs.commit(database, mine, [foreign])

    assert (receipt.held, receipt.stored) == (True, 0)
    assert _states(database)[foreign] == (foreign, "running", 1)


def test_a_commit_stores_outcomes_and_moves_the_counters(database: Database) -> None:
    batch = jobs.store(database, 3)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)

    with database.begin() as conn:
        outcomes = [jobs.answer(0), jobs.failure(2)]
        receipt = leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)

    assert receipt == CommitReceipt(held=True, stored=2, shard_done=False, batch_done=False)
    with database.begin() as conn:
        now = reading.get_batch(conn, jobs.OWNER, batch.id)
        rows = reading.results(conn, batch.id, 0, 10)
    assert now is not None
    assert (now.completed, now.failed, now.prompt_tokens, now.completion_tokens) == (1, 1, 8, 2)
    assert [(row.position, row.text, row.error_code) for row in rows] == [
        (0, "answer 0", None),
        (2, None, "context_length_exceeded"),
    ]


def test_the_last_outcome_closes_shard_and_job_and_is_announced(database: Database) -> None:
    batch = jobs.store(database, 2)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    with database.listen(DONE_CHANNEL) as listener:
        first = jobs.commit(database, shard, [0])
        assert listener.wait(0) == []
        last = jobs.commit(database, shard, [1])
        announced = listener.wait(30)

    assert (first.shard_done, first.batch_done) == (False, False)
    assert (last.shard_done, last.batch_done) == (True, True)
    assert announced == [batch.id]
    assert _status(database, batch.id) == BatchStatus.FINALIZING


def test_a_commit_that_is_repeated_is_answered_and_changes_nothing(database: Database) -> None:
    batch = jobs.store(database, 2)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    jobs.commit(database, shard)
    with database.begin() as conn:
        before = reading.results(conn, batch.id, 0, 10)

    changed = [Outcome(0, "another answer", "stop", 1, 1), jobs.failure(1)]
    with database.begin() as conn:
        again = leases.commit(conn, shard.id, shard.epoch, changed, jobs.LEASE)

    assert again == CommitReceipt(held=True, stored=0, shard_done=True, batch_done=True)
    with database.begin() as conn:
        assert reading.results(conn, batch.id, 0, 10) == before


def test_one_commit_with_a_prompt_twice_stores_it_once(database: Database) -> None:
    jobs.store(database, 2)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)

    receipt = jobs.commit(database, shard, [0, 0])

    assert (receipt.stored, receipt.shard_done) == (1, False)


def test_a_prompt_may_fail_before_it_is_admitted_but_not_succeed(database: Database) -> None:
    jobs.store(database, 2)
    (shard,) = jobs.claim(database)

    with database.begin() as conn:
        outcomes = [jobs.answer(0), jobs.failure(1)]
        receipt = leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)

    assert receipt.stored == 1
    assert [state for _, state, _ in _states(database)] == ["pending", "failed"]


def test_a_counted_prompt_needs_no_admission_but_a_lease_that_stands(database: Database) -> None:
    jobs.store(database)
    (shard,) = jobs.claim(database)
    counted = [Outcome(0, "", "stop", 7, 0, counted=True)]

    with database.begin() as conn:
        late = leases.commit(conn, shard.id, shard.epoch - 1, counted, jobs.LEASE)
        held = leases.commit(conn, shard.id, shard.epoch, counted, jobs.LEASE)

    assert (late.held, late.stored) == (False, 0)
    assert (held.stored, held.batch_done) == (1, True)
    assert _states(database) == [(0, "done", 0)]


def test_text_that_postgresql_refuses_is_stored_with_replacements(database: Database) -> None:
    batch = jobs.store(database, 2)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    outcomes = [
        Outcome(0, "a\0b \ud83d c \\ ' %s :x \N{PILE OF POO}", "stop", 1, 1),
        Outcome(1, None, None, 1, 0, "engine_error", "bad\0\udc00 byte"),
    ]

    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)

    with database.begin() as conn:
        good, bad = reading.results(conn, batch.id, 0, 2)
    assert good.text == "a\ufffdb \ufffd c \\ ' %s :x \N{PILE OF POO}"
    assert bad.error_message == "bad\ufffd\ufffd byte"


def test_a_claim_says_how_long_the_job_has_left(database: Database) -> None:
    jobs.store(database)
    jobs.store(database, expires_in=100.0)

    plain, timed = jobs.claim(database, limit=2)

    assert plain.seconds_left is None
    assert timed.seconds_left == pytest.approx(100, abs=5)


def test_a_job_whose_time_is_over_is_claimed_no_more_though_nobody_has_ended_it(
    database: Database,
) -> None:
    batch = jobs.store(database, 2 * SHARD_SIZE, expires_in=100.0)
    (shard,) = jobs.claim(database)
    with database.begin() as conn:
        conn.execute(text("UPDATE batches SET expires_at = now()"))
        assert leases.release(conn, shard.id, shard.epoch)

    assert jobs.claim(database, limit=9) == []
    assert _status(database, batch.id) == BatchStatus.IN_PROGRESS


def test_a_lost_shard_takes_no_write_of_its_old_holder(database: Database) -> None:
    jobs.store(database, 2)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard, [0])
    _lose(database, shard)
    before = _states(database)

    assert not jobs.admit(database, shard)
    assert jobs.commit(database, shard) == LOST
    with database.begin() as conn:
        assert not leases.release(conn, shard.id, shard.epoch)
        assert leases.heartbeat(conn, [(shard.id, shard.epoch)], jobs.LEASE) == set()
        assert leases.held(conn, [(shard.id, shard.epoch)]) == set()
    assert _states(database) == before


def test_a_heartbeat_keeps_what_is_held_and_names_it(database: Database) -> None:
    jobs.store(database, 2 * SHARD_SIZE)
    kept, lost = jobs.claim(database, limit=2, lease=5.0)
    named = [(kept.id, kept.epoch), (lost.id, lost.epoch - 1)]

    with database.begin() as conn:
        assert leases.held(conn, named) == {kept.id}
        assert leases.heartbeat(conn, named, 1000.0) == {kept.id}
        assert leases.heartbeat(conn, [], 1000.0) == set()
        assert leases.held(conn, []) == set()
        rows = conn.execute(
            text("SELECT id FROM shards WHERE lease_until > now() + interval '900s'")
        )
        assert rows.scalars().all() == [kept.id]


def test_a_grace_extends_every_lease_and_shortens_none(database: Database) -> None:
    jobs.store(database, 2 * SHARD_SIZE)
    jobs.claim(database, lease=5.0)
    jobs.claim(database, lease=5000.0)

    with database.begin() as conn:
        assert leases.extend_all(conn, 1000.0) == 2
        left = conn.execute(
            text("SELECT extract(epoch FROM lease_until - now())::int FROM shards ORDER BY id")
        )
        assert left.scalars().all() == [pytest.approx(1000, abs=5), pytest.approx(5000, abs=5)]
