"""Leases taken back: what was running is repeated, what kills workers is found, and nothing else
is blamed for it."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from penstock.errors import PromptError
from storage import leases, lifecycle, reading
from storage.database import Database
from storage.records import ClaimedShard
from storage.states import BatchStatus
from storage.tables import SHARD_SIZE
from tests.support import jobs


def _end_leases(database: Database) -> None:
    with database.begin() as conn:
        conn.execute(
            text("UPDATE shards SET lease_until = now() - interval '1s' WHERE state = 'leased'")
        )


def _reap(database: Database, limit: int = 100) -> int:
    with database.begin() as conn:
        return leases.reap(conn, limit)


def _requests(database: Database) -> list[tuple[int, str, int, int, int]]:
    with database.begin() as conn:
        rows = conn.execute(
            text(
                "SELECT position, state, attempts, crashes, crashes_alone"
                " FROM requests ORDER BY batch_id, position"
            )
        )
        return [tuple(row) for row in rows]


def _crash(database: Database, shard: ClaimedShard, running: list[int]) -> None:
    assert jobs.admit(database, shard, running)
    _end_leases(database)
    assert _reap(database) == 1


def test_a_live_lease_is_not_reaped(database: Database) -> None:
    jobs.store(database)
    jobs.claim(database)

    assert _reap(database) == 0


def test_a_lease_that_ran_out_is_ready_again_and_only_the_running_crashed(
    database: Database,
) -> None:
    jobs.store(database, 3)
    (shard,) = jobs.claim(database)

    _crash(database, shard, [0, 2])

    assert _requests(database) == [
        (0, "pending", 1, 1, 0),
        (1, "pending", 0, 0, 0),
        (2, "pending", 1, 1, 0),
    ]
    (again,) = jobs.claim(database)
    assert again.id == shard.id
    assert again.epoch == shard.epoch + 2
    assert [request.position for request in again.requests] == [0, 1, 2]


def test_a_reap_takes_no_more_than_its_limit(database: Database) -> None:
    jobs.store(database, 3 * SHARD_SIZE)
    jobs.claim(database, limit=3)
    _end_leases(database)

    assert [_reap(database, 2) for _ in range(3)] == [2, 1, 0]


def test_a_heartbeat_before_the_reaper_saves_the_lease(database: Database) -> None:
    jobs.store(database)
    (shard,) = jobs.claim(database)
    _end_leases(database)

    with database.begin() as conn:
        assert leases.heartbeat(conn, [(shard.id, shard.epoch)], jobs.LEASE) == {shard.id}

    assert _reap(database) == 0


def test_two_crashes_give_a_prompt_a_shard_of_its_own(database: Database) -> None:
    jobs.store(database, 3)
    for _ in range(2):
        (shard,) = jobs.claim(database)
        _crash(database, shard, [1])

    rest, alone = jobs.claim(database, limit=5)

    assert [request.position for request in rest.requests] == [0, 2]
    assert [request.position for request in alone.requests] == [1]
    assert (rest.alone, alone.alone) == (False, True)


def test_a_shard_whose_every_prompt_is_moved_out_is_done(database: Database) -> None:
    jobs.store(database, 2)
    for _ in range(2):
        (shard,) = jobs.claim(database)
        _crash(database, shard, [0, 1])

    claimed = jobs.claim(database, limit=5)

    assert [shard.alone for shard in claimed] == [True, True]
    with database.begin() as conn:
        state, remaining = conn.execute(
            text("SELECT state, remaining FROM shards WHERE NOT alone")
        ).one()
    assert (state, remaining) == ("done", 0)


def test_three_crashes_alone_condemn_a_prompt_and_the_job_goes_on(database: Database) -> None:
    batch = jobs.store(database, 1)
    for crash in range(5):
        (shard,) = jobs.claim(database)
        assert shard.alone == (crash >= 2)
        _crash(database, shard, [0])

    assert jobs.claim(database) == []
    assert _requests(database) == [(0, "failed", 5, 5, 3)]
    with database.begin() as conn:
        (result,) = reading.results(conn, batch.id, 0, 10)
        assert result.error_code == PromptError.POISON
        assert lifecycle.finalize(conn) == [batch.id]
        ended = reading.get_batch(conn, jobs.OWNER, batch.id)
    assert ended is not None
    assert (ended.status, ended.failed) == (BatchStatus.FAILED, 1)


def test_a_suspect_waits_behind_the_others_after_each_crash(database: Database) -> None:
    jobs.store(database, 2)
    for _ in range(2):
        (shard,) = jobs.claim(database)
        _crash(database, shard, [0, 1])
    first: list[int] = []
    for _ in range(4):
        (shard,) = jobs.claim(database)
        first.append(shard.requests[0].position)
        _crash(database, shard, first[-1:])
    assert first == [0, 1, 0, 1]


def test_a_prompt_that_kills_every_worker_is_found_and_no_other_is_blamed(
    database: Database,
) -> None:
    poison = {5, 40}
    batch = jobs.store(database, SHARD_SIZE)

    for _ in range(100):
        claimed = jobs.claim(database)
        if not claimed:
            break
        (shard,) = claimed
        positions = [request.position for request in shard.requests]
        if poison & set(positions):
            _crash(database, shard, positions)
        else:
            jobs.admit(database, shard)
            jobs.commit(database, shard)

    with database.begin() as conn:
        lifecycle.finalize(conn)
        ended = reading.get_batch(conn, jobs.OWNER, batch.id)
        rows = reading.results(conn, batch.id, 0, SHARD_SIZE)
    assert {row.position for row in rows if row.error_code == PromptError.POISON} == poison
    assert ended is not None
    assert (ended.status, ended.completed, ended.failed) == (
        BatchStatus.COMPLETED,
        SHARD_SIZE - len(poison),
        len(poison),
    )


def test_release_gives_back_without_penalty(database: Database) -> None:
    jobs.store(database, 3)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard, [0, 1])
    jobs.commit(database, shard, [0])

    with database.begin() as conn:
        assert leases.release(conn, shard.id, shard.epoch)
        assert not leases.release(conn, shard.id, shard.epoch)

    assert _requests(database) == [
        (0, "done", 1, 0, 0),
        (1, "pending", 0, 0, 0),
        (2, "pending", 0, 0, 0),
    ]
    (again,) = jobs.claim(database, "other")
    assert [request.position for request in again.requests] == [1, 2]
    assert again.epoch > shard.epoch


def test_a_booting_worker_frees_what_its_own_dead_boots_hold(database: Database) -> None:
    jobs.store(database, 4 * SHARD_SIZE)
    (older,) = jobs.claim(database, "slot", "boot-1")
    (old,) = jobs.claim(database, "slot", "boot-2")
    (own,) = jobs.claim(database, "slot", "boot-3")
    (foreign,) = jobs.claim(database, "other", "boot-1")
    running = old.requests[0].position
    jobs.admit(database, old, [running])

    with database.begin() as conn:
        assert leases.release_slot(conn, "slot", "boot-3") == 2
        assert leases.release_slot(conn, "slot", "boot-3") == 0
        named = [(shard.id, shard.epoch) for shard in (older, old, own, foreign)]
        assert leases.held(conn, named) == {own.id, foreign.id}

    assert _requests(database)[running] == (running, "pending", 1, 1, 0)


@pytest.mark.parametrize("booting", [False, True])
def test_a_shard_of_a_job_that_is_ending_is_left_to_be_closed(
    database: Database, booting: bool
) -> None:
    batch = jobs.store(database)
    jobs.claim(database)
    _end_leases(database)
    with database.begin() as conn:
        lifecycle.request_cancel(conn, jobs.OWNER, batch.id)

    with database.begin() as conn:
        freed = leases.release_slot(conn, "slot", "next") if booting else leases.reap(conn)
        closed = lifecycle.close_open(conn)

    assert (freed, closed) == (0, 1)
