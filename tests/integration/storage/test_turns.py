"""Whose shard is claimed next: owners in turn, each one's line by priority and age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, text

from storage import leases, lifecycle
from storage.database import Database
from storage.records import ClaimedShard
from storage.states import Lane
from storage.tables import AGING, SHARD_SIZE
from tests.support import jobs

READY = text("""
    INSERT INTO shards (batch_id, model, lane, priority, owner, state, remaining)
    SELECT :batch, :model, 'bulk', 0, :prefix || n % :owners, 'ready', 64
    FROM generate_series(1, :count) AS n
""")
READS = text("""
    SELECT sum(idx_scan), sum(idx_tup_read) FROM pg_stat_user_indexes
    WHERE relname IN ('shards', 'batches')
""")


def _claim_in_turn(database: Database, count: int, after: str = "") -> list[ClaimedShard]:
    """As one worker does: each claim begins after the owner that the last one ended with."""
    taken: list[ClaimedShard] = []
    while len(taken) < count and (claimed := jobs.claim(database, after=after)):
        taken += claimed
        after = claimed[-1].owner
    return taken


def test_a_huge_job_and_a_small_one_of_another_owner_have_every_second_turn(
    database: Database,
) -> None:
    jobs.store(database, 60 * SHARD_SIZE, owner="huge")
    jobs.store(database, 5 * SHARD_SIZE, owner="small", priority=-100)

    owners = [shard.owner for shard in _claim_in_turn(database, 12)]

    assert owners[:10] == ["huge", "small"] * 5
    assert owners[10:] == ["huge", "huge"]


def test_every_owner_has_a_turn_before_any_has_a_second(database: Database) -> None:
    names = [f"owner-{number}" for number in range(7)]
    for name in names:
        jobs.store(database, 3 * SHARD_SIZE, owner=name)

    owners = [shard.owner for shard in _claim_in_turn(database, 21, after="owner-4")]

    assert owners == [*names[5:], *names[:5]] * 3


def test_an_owner_whose_only_job_is_ending_loses_its_turn_to_the_next(database: Database) -> None:
    ending = jobs.store(database, owner="a")
    jobs.store(database, owner="b")
    with database.begin() as conn:
        lifecycle.request_cancel(conn, "a", ending.id)

    assert [shard.owner for shard in _claim_in_turn(database, 5)] == ["b"]


def test_what_is_left_of_a_claim_goes_to_the_same_owner_and_then_to_the_next(
    database: Database,
) -> None:
    for owner, count in (("a", 2), ("b", 2), ("c", 2)):
        for _ in range(count):
            jobs.store(database, owner=owner)

    taken = jobs.claim(database, after="b", again=True, limit=5)

    assert [shard.owner for shard in taken] == ["b", "b", "c", "c", "a"]


def test_several_shards_of_a_claim_are_together_no_larger_than_was_asked(
    database: Database,
) -> None:
    for size in (1, 20, 30, 40, 2):
        jobs.store(database, size)

    taken = jobs.claim(database, limit=5, rows=SHARD_SIZE)

    assert [len(shard.requests) for shard in taken] == [1, 20, 30]


def test_a_low_priority_that_waited_long_enough_is_claimed_first(database: Database) -> None:
    low = jobs.store(database, priority=-2)
    with database.begin() as conn:
        wait = text("UPDATE shards SET due_at = due_at - make_interval(secs => :age)")
        conn.execute(wait, {"age": 3 * AGING + 60})
    high, higher = jobs.store(database, priority=1), jobs.store(database, priority=3)

    claimed = [shard.batch_id for shard in _claim_in_turn(database, 3)]

    assert claimed == [higher.id, low.id, high.id]


def test_what_is_tried_again_keeps_its_owner_and_its_priority(database: Database) -> None:
    jobs.store(database, owner="a", priority=7)
    (shard,) = jobs.claim(database)
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [jobs.failure(0)], jobs.LEASE)
        lifecycle.finalize(conn)
        lifecycle.retry_failed(conn, "a", shard.batch_id)
        line = conn.execute(text("SELECT owner, now() - due_at FROM shards WHERE state = 'ready'"))
        ((owner, head_start),) = line.all()

    assert (owner, head_start.total_seconds()) == ("a", 7 * AGING)


def test_what_older_code_stores_meanwhile_has_a_turn_of_its_own(database: Database) -> None:
    batch = jobs.store(database, 2 * SHARD_SIZE, owner="a")
    with database.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO shards (batch_id, model, lane, priority, state, remaining)"
                " SELECT :batch, :model, 'bulk', n, 'ready', 1 FROM generate_series(0, 1) AS n"
            ),
            {"batch": batch.id, "model": jobs.MODEL},
        )

    assert [shard.owner for shard in _claim_in_turn(database, 4)] == ["a", "", "a", ""]


def test_many_claimers_share_the_owners_and_never_a_shard(database_url: str) -> None:
    wide = Database(database_url, pool_size=8)
    for owner in ("a", "b", "c"):
        jobs.store(wide, 16 * SHARD_SIZE, owner=owner)

    def work(number: int) -> list[ClaimedShard]:
        return _claim_in_turn(wide, 4, after=f"{'abc'[number % 3]}")

    with ThreadPoolExecutor(8) as pool:
        taken = [shard for mine in pool.map(work, range(6)) for shard in mine]

    assert len({shard.id for shard in taken}) == 24
    # Each of six claimers went round the ring one and a third times.
    assert all(count == 8 for count in Counter(shard.owner for shard in taken).values())
    wide.close()


@pytest.fixture
def one_connection(database_url: str) -> Iterator[Database]:
    opened = Database(database_url, pool_size=1)
    yield opened
    opened.close()


@pytest.mark.parametrize("analyzed", [False, True])
def test_a_claim_costs_the_same_however_many_shards_and_owners_wait(
    one_connection: Database, analyzed: bool
) -> None:
    batch = jobs.store(one_connection, owner="middle")
    costs: list[tuple[int, int]] = []
    # 1,000 ready shards of ten owners, then 20,000, then those and 200 owners more on each side.
    for prefix, owners, count in (("m-", 10, 1_000), ("m-", 10, 19_000), ("a-", 200, 400)):
        with one_connection.begin() as conn:
            conn.execute(
                READY,
                {
                    "batch": batch.id,
                    "model": jobs.MODEL,
                    "prefix": prefix,
                    "owners": owners,
                    "count": count,
                },
            )
            if analyzed:
                conn.execute(text("ANALYZE"))
        # After the last owner: the turn comes round to the first.
        costs += [_reads(one_connection, after) for after in ("m-3", "zz")]

    assert all(scans <= 8 and reads <= 10 for scans, reads in costs), costs


def _reads(database: Database, after: str) -> tuple[int, int]:
    """Index scans and index entries that one claim reads of shards and batches."""
    before = _counters(database)
    with database.begin() as conn:
        _claim_once(conn, after)
    scans, entries = (new - old for old, new in zip(before, _counters(database), strict=True))
    return scans, entries


def _claim_once(conn: Connection, after: str) -> None:
    who = {"model": jobs.MODEL, "lane": Lane.BULK, "slot": "slot", "boot_id": "boot"}
    (shard,) = leases.claim(conn, **who, lease=jobs.LEASE, after=after)  # type: ignore[arg-type]
    assert shard.owner != after


def _counters(database: Database) -> tuple[int, int]:
    with database.begin() as conn:
        conn.execute(text("SELECT pg_stat_force_next_flush()"))
    with database.begin() as conn:
        scans, entries = conn.execute(READS).one()
        return int(scans), int(entries)
