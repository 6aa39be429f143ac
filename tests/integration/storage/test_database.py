"""The door to PostgreSQL: not getting through is always `Unavailable`, and never for good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from sqlalchemy import exc, text

from penstock.errors import StackError, Unavailable
from storage import intake
from storage.database import Database, sqlalchemy_url
from storage.records import NewPrompt
from tests.support import jobs
from tests.support.postgres import PostgresServer

SECRET = "hunter2-secret"
END_ALL = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def _end_all_connections(url: str) -> None:
    """What a restart of PostgreSQL does to its clients."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(END_ALL)


def _ping(database: Database) -> int:
    with database.begin() as conn:
        return int(conn.execute(text("SELECT 1")).scalar_one())


def test_a_block_that_raises_is_rolled_back(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.begin() as conn:
        intake.create_batch(conn, jobs.new_batch(), jobs.prompts(1))
        raise ZeroDivisionError

    with database.begin() as conn:
        assert conn.execute(text("SELECT count(*) FROM batches")).scalar_one() == 0


def test_a_server_that_is_not_there_is_unavailable_and_no_secret_is_told() -> None:
    database = Database(f"postgresql://user:{SECRET}@127.0.0.1:1/none", connect_timeout=2)

    with pytest.raises(Unavailable) as raised:
        _ping(database)
    with pytest.raises(Unavailable):
        database.listen("channel")
    with pytest.raises(Unavailable):
        database.advisory_lock(1).try_acquire()

    assert raised.value.__cause__ is not None
    assert SECRET not in f"{raised.value} {raised.value.__cause__}"


def test_a_broken_connection_costs_one_transaction_at_most(
    database: Database, database_url: str
) -> None:
    with pytest.raises(Unavailable), database.begin() as conn:
        conn.execute(text("SELECT 1"))
        _end_all_connections(database_url)
        conn.execute(text("SELECT 1"))

    assert _ping(database) == 1


def test_an_idle_connection_that_broke_costs_nothing(database: Database, database_url: str) -> None:
    _ping(database)
    _end_all_connections(database_url)

    assert _ping(database) == 1


def test_a_connection_that_breaks_while_prompts_are_copied_is_unavailable(
    database: Database, database_url: str
) -> None:
    def prompts() -> Iterator[NewPrompt]:
        yield from jobs.prompts(1000)
        _end_all_connections(database_url)
        yield from jobs.prompts(1000)

    with pytest.raises(Unavailable), database.begin() as conn:
        intake.create_batch(conn, jobs.new_batch(), prompts())

    assert jobs.store(database, 2).total == 2


def test_a_statement_that_takes_too_long_is_unavailable(database_url: str) -> None:
    database = Database(database_url, statement_timeout=0.05)

    with pytest.raises(Unavailable), database.begin() as conn:
        conn.execute(text("SELECT pg_sleep(10)"))
    database.close()


def test_a_mistake_in_a_statement_is_not_an_outage(database: Database) -> None:
    with pytest.raises(exc.ProgrammingError), database.begin() as conn:
        conn.execute(text("SELECT 1 FROM nowhere"))


def test_every_wait_of_a_connection_has_a_limit(database: Database) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    with database.begin() as conn:
        limits = {name: conn.execute(text(f"SHOW {name}")).scalar_one() for name in names}

    assert limits == {
        "statement_timeout": "30s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "1min",
    }


def test_notifications_reach_a_listener_when_they_are_committed(database: Database) -> None:
    with database.listen("channel") as listener:
        with database.begin() as conn:
            conn.execute(text("SELECT pg_notify('channel', 'one')"))
            conn.execute(text("SELECT pg_notify('other', 'not for us')"))
            assert listener.wait(0) == []
        assert listener.wait(30) == ["one"]
        assert listener.wait(0) == []


def test_a_waiting_listener_is_woken(database: Database) -> None:
    def notify() -> None:
        with database.begin() as conn:
            conn.execute(text("SELECT pg_notify('channel', 'late')"))

    with database.listen("channel") as listener:
        timer = threading.Timer(0.1, notify)
        timer.start()
        assert listener.wait(10) == ["late"]
        timer.join()


def test_a_listener_that_lost_its_connection_says_so(database: Database, database_url: str) -> None:
    with database.listen("channel") as listener:
        _end_all_connections(database_url)
        with pytest.raises(Unavailable):
            listener.wait(5)
        with pytest.raises(Unavailable):
            listener.wait(5)


def test_an_advisory_lock_has_one_holder(database: Database, database_url: str) -> None:
    first, second = database.advisory_lock(7), database.advisory_lock(7)

    assert first.try_acquire() and first.try_acquire()
    assert not second.try_acquire()
    assert (first.alive(), second.alive()) == (True, False)

    first.release()
    assert not first.alive()
    assert second.try_acquire()

    _end_all_connections(database_url)
    assert not second.alive()
    assert first.try_acquire()
    first.release()


def test_a_lock_is_free_again_when_its_holder_dies(postgres_server: PostgresServer) -> None:
    with postgres_server.empty_database() as url:
        database = Database(url)
        holder, successor = database.advisory_lock(7), database.advisory_lock(7)
        holder.try_acquire()
        _end_all_connections(url)

        assert successor.try_acquire()
        assert not holder.try_acquire()
        successor.release()
        database.close()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u:p%40ss@host:5433/db", "postgresql+psycopg2://u:p%40ss@host:5433/db"),
        ("postgres://host/db?sslmode=require", "postgresql+psycopg2://host/db?sslmode=require"),
        ("postgresql+psycopg2://host/db", "postgresql+psycopg2://host/db"),
        (
            "postgresql://postgres:@/db?host=/tmp/x",
            "postgresql+psycopg2://postgres:@/db?host=%2Ftmp%2Fx",
        ),
    ],
)
def test_database_urls_name_the_driver(given: str, expected: str) -> None:
    assert sqlalchemy_url(given) == expected


@pytest.mark.parametrize("url", ["", "mysql://host/db", "host/db", "postgresql://host:port/db"])
def test_a_url_of_another_kind_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(StackError, match=r"not of the form postgresql://user"):
        sqlalchemy_url(url)
