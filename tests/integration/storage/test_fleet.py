"""What the workers say of themselves."""

from __future__ import annotations

from sqlalchemy import text

from storage import fleet
from storage.database import Database


def test_a_worker_is_seen_while_it_beats(database: Database) -> None:
    with database.begin() as conn:
        fleet.register(conn, "slot", "boot-1", "model", {"device": "cpu", "parameters": 7})
        assert fleet.beat(conn, "slot", "boot-1", {"running": 3})
        (worker,) = fleet.workers(conn)

    assert (worker.slot, worker.boot_id, worker.model) == ("slot", "boot-1", "model")
    assert worker.info == {"device": "cpu", "parameters": 7}
    assert worker.stats == {"running": 3}
    assert 0 <= worker.age < 30


def test_a_worker_that_is_silent_is_left_out_until_it_beats_again(database: Database) -> None:
    with database.begin() as conn:
        for slot in ("b", "a"):
            fleet.register(conn, slot, "boot", "model", {})
        conn.execute(text("UPDATE workers SET beat_at = now() - interval '31s' WHERE slot = 'a'"))

    with database.begin() as conn:
        assert [worker.slot for worker in fleet.workers(conn)] == ["b"]
        assert [worker.slot for worker in fleet.workers(conn, max_age=60.0)] == ["a", "b"]
        fleet.beat(conn, "a", "boot", {})
        assert [worker.slot for worker in fleet.workers(conn)] == ["a", "b"]


def test_a_newer_boot_takes_the_slot_over(database: Database) -> None:
    with database.begin() as conn:
        fleet.register(conn, "slot", "boot-1", "old", {"a": 1})
        fleet.beat(conn, "slot", "boot-1", {"running": 3})
        fleet.register(conn, "slot", "boot-2", "new", {"b": 2})

        assert not fleet.beat(conn, "slot", "boot-1", {"running": 9})
        assert not fleet.beat(conn, "unknown", "boot-2", {})
        (worker,) = fleet.workers(conn)

    assert (worker.boot_id, worker.model, worker.info, worker.stats) == (
        "boot-2",
        "new",
        {"b": 2},
        {},
    )
