"""Admissions are durable before the engine gets them, though it seldom waits for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event, text

from penstock.errors import Unavailable
from storage.database import Database
from storage.states import Lane
from tests.support import jobs
from tests.support.waiting import until
from workers.admissions import Admissions
from workers.lease import Lease

AHEAD = 4


@pytest.fixture
def lost() -> list[Lease]:
    return []


@pytest.fixture
def admissions(database: Database, lost: list[Lease]) -> Iterator[Admissions]:
    made = Admissions(database, ahead=AHEAD, on_lost=lost.append)
    yield made
    assert made.stop()


@pytest.fixture
def lease(database: Database) -> Lease:
    """Ten prompts, claimed."""
    jobs.store(database, 10)
    (shard,) = jobs.claim(database)
    return Lease(shard)


def rows(lease: Lease, *positions: int) -> dict[str, tuple[Lease, int]]:
    return {lease.request_id(position): (lease, position) for position in positions}


def running(database: Database) -> dict[int, int]:
    """Attempts by position of what is admitted."""
    with database.begin() as conn:
        found = conn.execute(
            text("SELECT position, attempts FROM requests WHERE state = 'running' ORDER BY 1")
        )
        return {row.position: row.attempts for row in found}


def statements(database: Database) -> list[str]:
    """Grows with every statement from now on."""
    seen: list[str] = []

    @event.listens_for(database._engine, "before_cursor_execute")
    def note(conn: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    return seen


def test_the_next_rows_are_admitted_before_the_engine_asks(
    admissions: Admissions, database: Database, lease: Lease
) -> None:
    admissions.start()
    admissions.expect(rows(lease, *range(10)))
    until("the next ones are admitted", lambda: len(running(database)) == AHEAD)

    asked = rows(lease, 0, 1)
    assert admissions.admit(asked) == asked.keys()

    assert running(database).keys() >= {0, 1}


def test_what_was_foreseen_costs_the_engine_no_statement(
    admissions: Admissions, database: Database, lease: Lease
) -> None:
    admissions.start()
    admissions.expect(rows(lease, 0, 1))
    until("they are admitted", lambda: len(running(database)) == 2)
    assert admissions.stop()
    seen = statements(database)

    assert admissions.admit(rows(lease, 0, 1)) == rows(lease, 0, 1).keys()

    assert seen == []


def test_what_was_not_foreseen_is_admitted_while_the_engine_waits(
    admissions: Admissions, database: Database, lease: Lease
) -> None:
    admissions.expect(rows(lease, *range(10)))  # its thread does not even run

    assert admissions.admit(rows(lease, 9, 3)) == rows(lease, 3, 9).keys()

    assert running(database) == {3: 1, 9: 1}


def test_a_row_is_never_admitted_twice_however_the_two_ways_meet(
    admissions: Admissions, database: Database, lease: Lease
) -> None:
    admissions.start()
    for position in range(10):
        admissions.expect(rows(lease, position))
        admissions.admit(rows(lease, position))

    until("all are admitted", lambda: len(running(database)) == 10)
    assert set(running(database).values()) == {1}


def test_rows_that_left_make_room_for_the_next(
    admissions: Admissions, database: Database, lease: Lease
) -> None:
    admissions.start()
    admissions.expect(rows(lease, *range(8)))
    until("the first ones are admitted", lambda: len(running(database)) == AHEAD)

    for position in range(4):
        admissions.forget(lease.request_id(position))
    admissions.expect(rows(lease, 8))

    until("the next ones are, too", lambda: len(running(database)) == 2 * AHEAD)


def test_rows_of_a_lost_lease_are_refused_and_the_lease_is_named(
    admissions: Admissions, database: Database, lease: Lease, lost: list[Lease]
) -> None:
    with database.begin() as conn:
        conn.execute(text("UPDATE shards SET epoch = epoch + 1"))

    assert admissions.admit(rows(lease, 0)) == set()

    assert lost == [lease]
    assert running(database) == {}


def test_a_database_that_is_away_is_the_engines_to_wait_for(database: Database) -> None:
    jobs.store(database)
    (shard,) = jobs.claim(database)
    lease = Lease(shard)
    away = Database("postgresql://nobody@127.0.0.1:1/nothing", connect_timeout=1)
    admissions = Admissions(away, ahead=AHEAD, on_lost=lambda lease: None)
    admissions.start()
    admissions.expect(rows(lease, 0))

    with pytest.raises(Unavailable):
        admissions.admit(rows(lease, 0))

    assert admissions.alive()
    assert admissions.stop()
    away.close()


def test_chats_are_admitted_with_their_claim(admissions: Admissions, database: Database) -> None:
    jobs.store(database, lane=Lane.EXPRESS)
    (shard,) = jobs.claim(database, lane=Lane.EXPRESS)
    lease = Lease(shard)
    seen = statements(database)

    admissions.already(rows(lease, 0))

    assert admissions.admit(rows(lease, 0)) == {lease.request_id(0)}
    assert seen == []
