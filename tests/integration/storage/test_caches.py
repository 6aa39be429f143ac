"""Answers that are found again, and what clients keep: found, bounded, and forgotten in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text

from penstock.errors import LimitReached
from storage import client_cache, leases, reading, response_cache, retention
from storage.client_cache import Entry, OwnerBounds
from storage.database import Database
from storage.response_cache import Bounds
from tests.support import jobs
from tests.support.postgres import PostgresServer

ONE, TWO = b"digest one", b"digest two"
DAY = 86_400.0


@pytest.fixture(scope="module")
def shared_database(postgres_server: PostgresServer) -> Iterator[Database]:
    with postgres_server.migrated_database() as url:
        database = Database(url)
        yield database
        database.close()


@pytest.fixture
def database(shared_database: Database) -> Database:
    """An empty one."""
    with shared_database.begin() as conn:
        conn.execute(text("TRUNCATE batches CASCADE"))
        conn.execute(text("TRUNCATE response_cache, client_cache, client_cache_reads"))
    return shared_database


def answered(database: Database, *digests: bytes, owner: str = jobs.OWNER) -> str:
    """A job whose answers can be found by these digests."""
    batch = jobs.store(database, len(digests), owner=owner)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    outcomes = [
        replace(jobs.answer(position), detail=f'{{"n": {position}}}', digest=digest)
        for position, digest in enumerate(digests)
    ]
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)
        response_cache.keep(conn, batch.id, outcomes)
    return batch.id


def found(database: Database, *digests: bytes, owner: str | None = jobs.OWNER) -> list[str | None]:
    """The texts of what is found, in order."""
    with database.begin() as conn:
        answers = response_cache.find(conn, digests, ttl=DAY, owner=owner)
    return [answers[digest].text if digest in answers else None for digest in digests]


def age(database: Database, seconds: float) -> None:
    with database.begin() as conn:
        conn.execute(
            text("UPDATE response_cache SET created_at = created_at - make_interval(secs => :s)"),
            {"s": seconds},
        )


def test_an_answer_is_found_whole_by_its_owner_alone(database: Database) -> None:
    answered(database, ONE, TWO)

    with database.begin() as conn:
        answers = response_cache.find(conn, [TWO, b"none"], ttl=DAY, owner=jobs.OWNER)

    expected = replace(jobs.answer(1), position=0, detail='{"n": 1}', from_cache=True)
    assert answers == {TWO: expected}
    assert found(database, ONE, TWO, owner="somebody else") == [None, None]
    assert found(database, ONE, owner=None) == ["answer 0"]


def test_an_answer_is_found_for_its_time_and_no_longer_than_its_result(database: Database) -> None:
    batch = answered(database, ONE)
    age(database, DAY + 1)
    assert found(database, ONE) == [None]

    batch = answered(database, ONE)  # computed again: found anew
    assert found(database, ONE) == ["answer 0"]
    with database.begin() as conn:
        conn.execute(text("UPDATE batches SET finished_at = now() - interval '1 day'"))
        assert reading.get_batch(conn, jobs.OWNER, batch) is not None
        conn.execute(text("UPDATE batches SET deleting = true"))
    assert found(database, ONE) == [None]
    with database.begin() as conn:
        retention.delete_old(conn, 3600.0)
    assert found(database, ONE) == [None]


def test_what_is_old_or_too_much_is_forgotten_in_portions(database: Database) -> None:
    answered(database, *(b"%d" % n for n in range(6)))
    age(database, 100)
    answered(database, *(b"%d" % n for n in range(10, 14)))

    with database.begin() as conn:
        assert response_cache.size(conn) == 10
        portions = [response_cache.delete_old(conn, Bounds(ttl=50), limit=4) for _ in range(3)]
        assert (portions, response_cache.size(conn)) == ([4, 2, 0], 4)
        assert response_cache.delete_old(conn, Bounds(entries=3)) == 1
        assert response_cache.delete_old(conn, Bounds(entries=3)) == 0
        assert response_cache.size(conn) == 3


def test_what_is_kept_anew_meanwhile_is_not_waited_for(database: Database) -> None:
    batch = answered(database, ONE, TWO)
    age(database, 100)

    with database.begin() as keeping:
        response_cache.keep(keeping, batch, [replace(jobs.answer(0), digest=ONE)])
        with database.begin() as conn:
            assert response_cache.delete_old(conn, Bounds(ttl=50)) == 1

    assert found(database, ONE, TWO) == ["answer 0", None]


def test_of_very_many_answers_the_number_is_told_without_counting(database: Database) -> None:
    with database.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO response_cache (digest, owner, batch_id, position)"
                " SELECT CAST(CAST(n AS text) AS bytea), 'o', 'b', n"
                " FROM generate_series(1, 5000) n"
            )
        )
        assert response_cache.size(conn) == 5_000


def test_a_value_lives_for_its_time_and_for_its_owner(database: Database) -> None:
    with database.begin() as conn:
        for owner in ("ann", "bob"):
            client_cache.put(conn, owner, Entry("k", f'"{owner}"', 60), OwnerBounds())
        client_cache.put(conn, "ann", Entry("k", '"again"', 60), OwnerBounds())
        client_cache.put(conn, "ann", Entry("short", "1", 60), OwnerBounds())
        conn.execute(text("UPDATE client_cache SET expires_at = now() WHERE key = 'short'"))

        assert client_cache.get(conn, "ann", "k") == '"again"'
        assert client_cache.get(conn, "bob", "k") == '"bob"'
        assert client_cache.get(conn, "ann", "short") is None
        assert client_cache.get(conn, "eve", "k") is None
        stats = [client_cache.stats(conn, owner) for owner in ("ann", "bob", "eve", "nobody")]
        assert [(one.keys, one.hits, one.misses) for one in stats] == [
            (1, 1, 1),
            (1, 1, 0),
            (0, 0, 1),
            (0, 0, 0),
        ]
        assert not client_cache.delete(conn, "ann", "short")
        assert client_cache.delete(conn, "ann", "k")
        assert not client_cache.delete(conn, "ann", "k")
        assert client_cache.get(conn, "bob", "k") == '"bob"'


def test_an_owner_keeps_so_much_and_no_more(database: Database) -> None:
    bounds = OwnerBounds(keys=2, bytes=20)
    with database.begin() as conn:
        client_cache.put(conn, "ann", Entry("a", "1", 30), bounds)
        client_cache.put(conn, "ann", Entry("b", "2", 90), bounds)
        with pytest.raises(LimitReached) as refused:
            client_cache.put(conn, "ann", Entry("c", "3", 60), bounds)
        assert refused.value.retry_after is not None
        assert 1 <= refused.value.retry_after <= 30
        client_cache.put(conn, "bob", Entry("c", "3", 60), bounds)
        client_cache.put(conn, "ann", Entry("b", "x" * 17, 60), bounds)  # in the place of the old
        with pytest.raises(LimitReached):
            client_cache.put(conn, "ann", Entry("b", "x" * 18, 60), bounds)
        conn.execute(text("UPDATE client_cache SET expires_at = now() WHERE key = 'a'"))
        client_cache.put(conn, "ann", Entry("c", "3", 60), bounds)


def test_expired_values_are_removed_in_portions(database: Database) -> None:
    with database.begin() as conn:
        for n in range(5):
            client_cache.put(conn, "ann", Entry(str(n), "1", 60), OwnerBounds())
        conn.execute(text("UPDATE client_cache SET expires_at = now() WHERE key < '3'"))

        assert [client_cache.delete_expired(conn, limit=2) for _ in range(3)] == [2, 1, 0]
        assert conn.execute(text("SELECT count(*) FROM client_cache")).scalar_one() == 2
