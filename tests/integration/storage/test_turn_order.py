"""Turns of one conversation are claimed one after the other, whatever becomes of those before."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from storage import forgetting, leases, lifecycle, reading, turns
from storage.database import Database
from storage.records import Batch, ClaimedShard
from storage.states import Lane
from tests.support import jobs
from tests.support.talk import said, say
from tests.support.waiting import until


def _claim(database: Database) -> ClaimedShard | None:
    return next(iter(jobs.claim(database, lane=Lane.EXPRESS, limit=5)), None)


def _answer(database: Database, shard: ClaimedShard) -> None:
    """As a worker does: the outcome, and the end of the turn."""
    jobs.admit(database, shard)
    jobs.commit(database, shard)
    jobs.end(database)


def _ready(database: Database) -> list[int]:
    """What the dispatcher would send wake-ups for."""
    with database.begin() as conn:
        return [ready for _, _, ready in reading.ready_lanes(conn, 100)]


def test_a_turn_waits_for_the_one_before_and_has_its_answer(database: Database) -> None:
    _, first = say(database, "mine", "one")
    _, second = say(database, "mine", "two")
    assert _ready(database) == [1]

    shard = _claim(database)
    assert shard is not None and shard.batch_id == first.id
    assert _claim(database) is None
    _answer(database, shard)

    following = _claim(database)
    assert following is not None and following.batch_id == second.id
    assert following.requests[0].history == (("user", "one"), ("assistant", "answer 0"))


def test_other_conversations_do_not_wait(database: Database) -> None:
    say(database, "mine", "one")
    say(database, "mine", "two")
    say(database, "other", "one")
    say(database, "mine", "one", owner="somebody")

    claimed = [*jobs.claim(database, lane=Lane.EXPRESS, limit=9)]

    assert len(claimed) == 3


def test_a_turn_that_waited_has_its_place_by_age(database: Database) -> None:
    _, first = say(database, "mine", "one")
    _, second = say(database, "mine", "two")
    _, later = say(database, "other", "one")
    (shard,) = jobs.claim(database, lane=Lane.EXPRESS)
    assert shard.batch_id == first.id
    _answer(database, shard)

    assert [one.batch_id for one in jobs.claim(database, lane=Lane.EXPRESS, limit=2)] == [
        second.id,
        later.id,
    ]


def _cancel(database: Database, batch: Batch) -> None:
    with database.begin() as conn:
        lifecycle.request_cancel(conn, jobs.OWNER, batch.id)
        lifecycle.close_open(conn)
    jobs.end(database)


@pytest.mark.parametrize("claimed", [True, False])
def test_a_cancelled_turn_holds_up_nobody(database: Database, claimed: bool) -> None:
    _, first = say(database, "mine", "one")
    _, second = say(database, "mine", "two")
    if claimed:
        assert _claim(database) is not None

    _cancel(database, first)

    shard = _claim(database)
    assert shard is not None and shard.batch_id == second.id
    assert shard.requests[0].history == ()


def test_a_turn_that_is_cancelled_while_it_waits_lets_nobody_pass_the_first(
    database: Database,
) -> None:
    say(database, "mine", "one")
    _, second = say(database, "mine", "two")
    _, third = say(database, "mine", "three")
    shard = _claim(database)
    assert shard is not None

    _cancel(database, second)
    assert _claim(database) is None
    _answer(database, shard)

    following = _claim(database)
    assert following is not None and following.batch_id == third.id
    assert [text for _, text in following.requests[0].history] == ["one", "answer 0"]


def test_a_turn_whose_worker_died_is_answered_before_the_next(database: Database) -> None:
    _, first = say(database, "mine", "one")
    say(database, "mine", "two")
    shard = _claim(database)
    assert shard is not None
    jobs.admit(database, shard)
    with database.begin() as conn:
        assert leases.release_slot(conn, "slot", "next boot") == 1

    again = _claim(database)

    assert again is not None and again.batch_id == first.id
    assert _claim(database) is None
    _answer(database, again)
    assert _claim(database) is not None


def test_an_end_that_told_nobody_is_made_good_by_the_next_tick(database: Database) -> None:
    _, first = say(database, "mine", "one")
    say(database, "mine", "two")
    shard = _claim(database)
    assert shard is not None
    jobs.admit(database, shard)
    jobs.commit(database, shard)
    with database.begin() as conn:  # as the code of an earlier release ends it
        conn.execute(
            text("UPDATE batches SET status = 'completed', finished_at = now() WHERE id = :id"),
            {"id": first.id},
        )
    assert _claim(database) is None

    with database.begin() as conn:
        assert turns.settle(conn) == 1

    assert _claim(database) is not None


def test_a_turn_that_comes_while_the_one_before_ends_misses_nothing(database: Database) -> None:
    _, first = say(database, "mine", "one")
    shard = _claim(database)
    assert shard is not None
    jobs.admit(database, shard)
    jobs.commit(database, shard)
    with ThreadPoolExecutor(1) as pool:
        with database.begin() as conn:
            assert lifecycle.finalize(conn, first.id) == [first.id]
            posting = pool.submit(say, database, "mine", "two")
            until("the post waits", lambda: _waiting(database) > 0)
        posting.result(timeout=30)

    following = _claim(database)
    assert following is not None and following.requests[0].history[0] == ("user", "one")


def _waiting(database: Database) -> int:
    with database.begin() as conn:
        query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return int(conn.execute(query).scalar_one())


def test_a_reset_waits_for_nobody_and_frees_who_waited(database: Database) -> None:
    say(database, "mine", "one")
    say(database, "mine", "two")
    assert _claim(database) is not None

    _, third = say(database, "mine", "three", reset=True)

    claimed = jobs.claim(database, lane=Lane.EXPRESS, limit=5)
    assert len(claimed) == 2 and third.id in {shard.batch_id for shard in claimed}
    assert {shard.requests[0].history for shard in claimed} == {()}


def test_a_conversation_that_is_deleted_cancels_what_waits(database: Database) -> None:
    say(database, "mine", "one")
    _, second = say(database, "mine", "two")

    with database.begin() as conn:
        assert forgetting.delete(conn, jobs.OWNER, "mine")
        while lifecycle.close_open(conn):
            pass
    jobs.end(database)

    assert said(database, "mine") == []
    with database.begin() as conn:
        assert reading.get_batch(conn, jobs.OWNER, second.id) is None
        query = text("SELECT DISTINCT status FROM batches")
        assert conn.execute(query).scalars().all() == ["cancelled"]


def test_many_at_once_on_one_conversation_are_answered_in_their_order(database: Database) -> None:
    """Posts, workers and the dispatcher, all at the same time."""
    stopping = threading.Event()
    seen: list[tuple[int, int]] = []

    def work() -> None:
        while not stopping.is_set():
            shard = _claim(database)
            if shard is None:
                stopping.wait(0.002)
                continue
            seen.append((len(shard.requests[0].history) // 2, shard.id))
            jobs.admit(database, shard)
            jobs.commit(database, shard)
            with database.begin() as conn:
                lifecycle.finalize(conn, shard.batch_id)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: say(database, "mine", str(n), history=100), range(40)))
        until("all are answered", lambda: len(said(database, "mine")) == 80)
    finally:
        stopping.set()
        for worker in workers:
            worker.join()

    assert [before for before, _ in seen] == list(range(40))
