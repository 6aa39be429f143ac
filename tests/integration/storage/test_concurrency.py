"""Many connections at once: nobody gets what another has, no count is lost, nothing deadlocks."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import Connection, text

from penstock.errors import Unavailable
from storage import leases, lifecycle
from storage.database import Database
from storage.records import ClaimedShard
from storage.states import TERMINAL_BATCH, Lane
from storage.tables import SHARD_SIZE
from tests.support import jobs
from tests.support.ledger import check_consistent, check_finished, read_ledger

THREADS = 8


@pytest.fixture
def wide(database_url: str) -> Iterator[Database]:
    database = Database(database_url, pool_size=THREADS + 2)
    yield database
    database.close()


def test_a_claim_passes_by_what_another_is_claiming(wide: Database) -> None:
    jobs.store(wide, 2 * SHARD_SIZE)
    with wide.begin() as conn:
        (first,) = leases.claim(
            conn, model=jobs.MODEL, lane=Lane.BULK, slot="a", boot_id="a", lease=jobs.LEASE
        )
        # The first claim is not committed yet; the second one does not wait for it.
        (second,) = jobs.claim(wide, "b")

    assert second.id != first.id
    assert jobs.claim(wide) == []


def test_many_claimers_never_get_the_same_shard(wide: Database) -> None:
    jobs.store(wide, 40 * SHARD_SIZE)

    def claim_all(number: int) -> list[int]:
        mine: list[int] = []
        while claimed := jobs.claim(wide, f"slot-{number}", limit=2):
            mine.extend(shard.id for shard in claimed)
        return mine

    with ThreadPoolExecutor(THREADS) as pool:
        given = Counter(shard for mine in pool.map(claim_all, range(THREADS)) for shard in mine)

    assert len(given) == 40
    assert set(given.values()) == {1}


def test_commits_of_one_job_at_once_lose_no_count_and_end_it_once(wide: Database) -> None:
    batch = jobs.store(wide, 20 * SHARD_SIZE)
    shards = jobs.claim(wide, limit=20)

    def finish(shard: ClaimedShard) -> int:
        jobs.admit(wide, shard)
        return sum(
            jobs.commit(wide, shard, [request.position]).batch_done for request in shard.requests
        )

    with ThreadPoolExecutor(THREADS) as pool:
        ended = sum(pool.map(finish, shards))

    assert ended == 1
    with wide.begin() as conn:
        ledger = read_ledger(conn)
    check_consistent(ledger)
    assert ledger.batches[batch.id].completed == 20 * SHARD_SIZE


def test_the_same_commit_from_two_connections_counts_once(wide: Database) -> None:
    jobs.store(wide, SHARD_SIZE)
    (shard,) = jobs.claim(wide)
    jobs.admit(wide, shard)
    start = threading.Barrier(THREADS)

    def commit(_: int) -> int:
        start.wait(10)
        return jobs.commit(wide, shard).stored

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(commit, range(THREADS))) == SHARD_SIZE
    with wide.begin() as conn:
        check_consistent(read_ledger(conn))


def test_a_job_ends_though_its_start_was_left_to_somebody_who_gave_up(wide: Database) -> None:
    batch = jobs.store(wide)

    with pytest.raises(ZeroDivisionError), wide.begin() as conn:
        lifecycle.request_cancel(conn, jobs.OWNER, batch.id)
        (shard,) = jobs.claim(wide)
        raise ZeroDivisionError

    jobs.admit(wide, shard)
    assert jobs.commit(wide, shard).batch_done
    with wide.begin() as conn:
        assert lifecycle.finalize(conn) == [batch.id]


def test_a_reaper_that_waited_sees_what_was_admitted_meanwhile(wide: Database) -> None:
    """The booting worker's statement begins before the admission that it must not overlook."""
    jobs.store(wide, 2)
    (shard,) = jobs.claim(wide)
    with ThreadPoolExecutor(1) as pool:
        with wide.begin() as conn:
            assert leases.admit(conn, shard.id, shard.epoch, [0])
            freeing = pool.submit(_release_slot, wide)
            jobs.await_blocked(wide)
        assert freeing.result(10) == 1

    with wide.begin() as conn:
        ledger = read_ledger(conn)
    check_consistent(ledger)
    assert {row.position: row.crashes for row in ledger.requests.values()} == {0: 1, 1: 0}


@pytest.mark.slow
def test_everything_at_once_comes_to_its_end(wide: Database) -> None:
    """Workers, a reaper, a canceller and a closer in parallel; then calm, and all is accounted
    for. A race that was lost to another is tried again, as callers do."""
    batches = [jobs.store(wide, 3 * SHARD_SIZE, priority=n % 3) for n in range(6)]
    rng = random.Random(7)
    turns = [rng.random() for _ in range(400)]

    def turn(chance: float) -> None:
        wide.transact(partial(_disturb, chance=chance, batch_ids=[batch.id for batch in batches]))
        if chance < 0.7:
            _work(wide, chance)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(turn, turns))
    for _ in range(10):
        wide.transact(_end_leases)
        wide.transact(leases.reap)
        wide.transact(lifecycle.close_open)
        jobs.run_all(wide)
        wide.transact(lifecycle.finalize)

    with wide.begin() as conn:
        ledger = read_ledger(conn)
    check_consistent(ledger)
    check_finished(ledger)
    assert all(row.status in TERMINAL_BATCH for row in ledger.batches.values())


def test_a_deadlock_is_tried_again(wide: Database) -> None:
    first, second = jobs.store(wide), jobs.store(wide)
    both_hold_one = threading.Barrier(2)
    tries: Counter[str] = Counter()

    def touch_both(order: tuple[str, str]) -> None:
        def work(conn: Connection) -> None:
            tries[order[0]] += 1
            _touch(conn, order[0])
            if tries[order[0]] == 1:
                both_hold_one.wait(10)
            _touch(conn, order[1])

        wide.transact(work)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(touch_both, [(first.id, second.id), (second.id, first.id)]))

    # The one that gave way may come back before the other woke up, and meet it again.
    assert sum(tries.values()) >= 3


def test_other_failures_are_not_tried_again(wide: Database) -> None:
    tries = []

    def work(conn: Connection) -> None:
        tries.append(1)
        conn.execute(text("SET LOCAL statement_timeout = 1"))
        conn.execute(text("SELECT pg_sleep(5)"))

    with pytest.raises(Unavailable):
        wide.transact(work)
    assert len(tries) == 1


def _touch(conn: Connection, batch_id: str) -> None:
    conn.execute(text("UPDATE batches SET priority = priority WHERE id = :id"), {"id": batch_id})


def _release_slot(database: Database) -> int:
    with database.begin() as conn:
        return leases.release_slot(conn, "slot", "next boot")


def _end_leases(conn: Connection) -> None:
    conn.execute(
        text("UPDATE shards SET lease_until = now() - interval '1s' WHERE state = 'leased'")
    )


def _disturb(conn: Connection, chance: float, batch_ids: list[str]) -> None:
    if chance < 0.05:
        lifecycle.request_cancel(conn, jobs.OWNER, batch_ids[int(chance * 20 * len(batch_ids))])
    elif chance < 0.15:
        lifecycle.close_open(conn, limit=3)
    elif chance < 0.25:
        leases.release_slot(conn, f"slot-{int(chance * 100) % 3}", f"boot-{chance}")
    elif chance < 0.35:
        leases.reap(conn)
    elif chance < 0.4:
        leases.extend_all(conn, jobs.LEASE)
    elif chance < 0.45:
        lifecycle.finalize(conn)


def _work(database: Database, chance: float) -> None:
    slot = f"slot-{int(chance * 1000) % 3}"
    lease = -1.0 if chance < 0.2 else jobs.LEASE
    claimed = jobs.claim(database, slot, f"boot-{chance}", limit=2, lease=lease)
    named = [(shard.id, shard.epoch) for shard in claimed]
    for shard in claimed:
        positions = [request.position for request in shard.requests][:40]
        jobs.admit(database, shard, positions)
        with database.begin() as conn:
            leases.heartbeat(conn, named, lease)
        if chance > 0.1:
            jobs.commit(database, shard, positions)
    if chance > 0.6:
        for shard in claimed:
            with database.begin() as conn:
                leases.release(conn, shard.id, shard.epoch)
