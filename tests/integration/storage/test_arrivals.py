"""Results in the order in which they became visible: none is missed, none comes twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from storage import arrivals, intake, leases, lifecycle
from storage.arrivals import Place
from storage.database import Database
from storage.records import ClaimedShard
from storage.states import Lane
from tests.support import jobs
from tests.support.waiting import until


def _read(
    database: Database, batch_id: str, place: Place | None = None, limit: int = 5
) -> tuple[list[int], Place]:
    """Positions in their order, page by page, and the place behind them."""
    place = place or Place()
    found: list[int] = []
    while True:
        with database.begin() as conn:
            page = arrivals.after(conn, batch_id, place, limit)
        if page.end is None:
            return found, place
        found += [arrival.row.position for arrival in page.arrivals]
        place = page.end


def _claim(database: Database) -> list[ClaimedShard]:
    claimed = jobs.claim(database, limit=16)
    for shard in claimed:
        jobs.admit(database, shard)
    return claimed


def test_commits_come_in_their_order_and_a_reader_goes_on_from_any_result(
    database: Database,
) -> None:
    batch = jobs.store(database, 150)
    first, second, third = _claim(database)
    jobs.commit(database, second, [row.position for row in second.requests[:7]])
    seen, place = _read(database, batch.id)
    jobs.commit(database, third)
    jobs.commit(database, first)
    jobs.commit(database, second, [row.position for row in second.requests[7:]])

    rest, _ = _read(database, batch.id, place)

    expected = [row.position for row in second.requests[:7]]
    assert seen == expected
    for shard in (third, first):
        expected += [row.position for row in shard.requests]
    expected += [row.position for row in second.requests[7:]]
    assert seen + rest == expected
    assert sorted(expected) == list(range(150))
    with database.begin() as conn:
        page = arrivals.after(conn, batch.id, Place(), 150).arrivals
    for number in (0, 3, 80, 149):
        assert _read(database, batch.id, page[number].place)[0] == expected[number + 1 :]


def test_a_commit_that_began_earlier_and_ends_later_has_the_later_number(
    database: Database,
) -> None:
    batch = jobs.store(database, 100)
    slow, quick = _claim(database)
    positions = [row.position for row in slow.requests]
    outcomes = [jobs.answer(position) for position in positions]
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    def waiting() -> bool:
        with database.begin() as conn:
            return bool(conn.execute(text(waits)).scalar_one())

    with ThreadPoolExecutor(1) as pool:
        with database.begin() as conn:
            leases.commit(conn, slow.id, slow.epoch, outcomes, jobs.LEASE)
            other = pool.submit(jobs.commit, database, quick)
            until("the other commit waits for this one", waiting)
            assert _read(database, batch.id)[0] == []
        other.result(timeout=20)

    quick_ones = [row.position for row in quick.requests]
    assert _read(database, batch.id)[0] == positions + quick_ones


@pytest.mark.parametrize("limit", [1, 3, 500])
def test_prompts_that_fail_without_an_engine_arrive_too(database: Database, limit: int) -> None:
    prompts = [jobs.bad_prompt(), *jobs.prompts(9), jobs.bad_prompt()]
    with database.begin() as conn:
        batch = intake.create_batch(conn, jobs.new_batch(), prompts)
    assert _read(database, batch.id, limit=limit)[0] == [0, 10]
    (shard,) = _claim(database)
    jobs.commit(database, shard, [row.position for row in shard.requests[:4]])
    with database.begin() as conn:
        lifecycle.request_cancel(conn, jobs.OWNER, batch.id)
        lifecycle.close_open(conn)

    found, _ = _read(database, batch.id, limit=limit)

    assert found[:2] == [0, 10]
    assert sorted(found) == list(range(11))


def test_a_prompt_that_is_tried_again_arrives_again(database: Database) -> None:
    batch = jobs.store(database, 3)
    (shard,) = _claim(database)
    with database.begin() as conn:
        outcomes = [jobs.answer(0), jobs.failure(1), jobs.answer(2)]
        leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)
        lifecycle.finalize(conn)
    seen, place = _read(database, batch.id)
    with database.begin() as conn:
        lifecycle.retry_failed(conn, jobs.OWNER, batch.id)
    assert (seen, _read(database, batch.id)[0]) == ([0, 1, 2], [0, 2])

    jobs.run_all(database)

    assert _read(database, batch.id, place)[0] == [1]


def test_chats_are_not_noted(database: Database) -> None:
    jobs.store(database, 1, id="chat_1", kind="chat", lane=Lane.EXPRESS)
    jobs.run_all(database)

    with database.begin() as conn:
        assert conn.execute(text("SELECT count(*) FROM arrivals")).scalar_one() == 0


def test_results_from_before_there_were_numbers_come_last_and_once(database: Database) -> None:
    batch = jobs.store(database, 70)
    old, new = _claim(database)
    jobs.commit(database, old)
    with database.begin() as conn:
        conn.execute(text("DELETE FROM arrivals"))
    jobs.commit(database, new)
    numbered, _ = _read(database, batch.id)
    found: list[int] = []
    place = Place(unnumbered=0)
    while True:
        with database.begin() as conn:
            page = arrivals.unnumbered(conn, batch.id, place.unnumbered or 0, 25)
        if page.end is None:
            break
        found += [arrival.row.position for arrival in page.arrivals]
        place = page.end

    assert found == sorted(row.position for row in old.requests)
    assert sorted(found + numbered) == list(range(70))


def test_two_workers_at_once_leave_no_hole_for_a_reader_that_never_stops(
    database: Database,
) -> None:
    batch = jobs.store(database, 640)
    shards = _claim(database)
    seen: list[int] = []
    over = threading.Event()

    def read() -> None:
        place = Place()
        last = False
        while not last:
            last = over.is_set()
            more, place = _read(database, batch.id, place, limit=50)
            seen.extend(more)

    def work(mine: list[ClaimedShard]) -> None:
        for shard in mine:
            rows = [row.position for row in shard.requests]
            for start in range(0, len(rows), 8):
                jobs.commit(database, shard, rows[start : start + 8])

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, shards[0::2]), pool.submit(work, shards[1::2])]:
            done.result(timeout=60)
    over.set()
    reader.join()

    assert sorted(seen) == list(range(640))
