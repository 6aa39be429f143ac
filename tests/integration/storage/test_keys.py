"""The rows of API keys: their end, their successor, and when they were used."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.errors import InvalidRequest
from storage import keys
from storage.database import Database
from storage.records import ApiKey
from tests.support.keys import SIGNER, add, id_of


def _find(database: Database, key_id: str) -> ApiKey:
    with database.begin() as conn:
        found = keys.find(conn, key_id)
    assert found is not None
    return found


def _rotate(database: Database, key_id: str, overlap: float) -> ApiKey | None:
    made = SIGNER.make()
    with database.begin() as conn:
        return keys.rotate(conn, key_id, made.id, made.digest, overlap)


def test_a_key_is_found_as_it_was_stored(database: Database) -> None:
    text = add(database, "ann", name="ci", expires_in=3600.0, requests_per_minute=5)
    add(database, "bob")

    found = _find(database, id_of(text))

    assert (found.owner, found.name, found.scopes) == ("ann", "ci", ("jobs", "chat", "files"))
    assert (found.requests_per_minute, found.tokens_per_minute) == (5, None)
    assert found.digest == SIGNER.digest(text)
    assert found.seconds_left is not None and 3500 < found.seconds_left <= 3600
    with database.begin() as conn:
        assert [key.owner for key in keys.list_keys(conn)] == ["ann", "bob"]
        assert [key.owner for key in keys.list_keys(conn, "bob")] == ["bob"]
        assert keys.find(conn, "0" * 16) is None


def test_a_revoked_key_stays_revoked_since_the_first_time(database: Database) -> None:
    key_id = id_of(add(database))
    with database.begin() as conn:
        assert keys.any_in_use(conn)
        first = keys.revoke(conn, key_id)
    with database.begin() as conn:
        second = keys.revoke(conn, key_id)
        assert keys.revoke(conn, "0" * 16) is None
        assert (keys.any_made(conn), keys.any_in_use(conn)) == (True, False)

    assert first is not None and second is not None
    assert first.revoked_at == second.revoked_at
    assert second.seconds_left is not None and second.seconds_left <= 0


def test_a_rotated_key_goes_on_for_the_overlap_and_its_successor_has_its_end(
    database: Database,
) -> None:
    key_id = id_of(add(database, "ann", name="ci", expires_in=86_400.0, tokens_per_minute=9))

    successor = _rotate(database, key_id, overlap=600)

    old = _find(database, key_id)
    assert successor is not None
    assert old.seconds_left is not None and 500 < old.seconds_left <= 600
    for name in ("owner", "name", "scopes", "tokens_per_minute", "expires_at"):
        assert getattr(successor, name) == getattr(old, name)
    assert successor.revoked_at is None
    assert _rotate(database, key_id, overlap=600) is None
    with database.begin() as conn:  # an earlier end than the rotation's may still be set
        ended = keys.revoke(conn, key_id)
    assert ended is not None and ended.seconds_left is not None and ended.seconds_left <= 0


def test_a_key_that_has_ended_is_not_rotated(database: Database) -> None:
    expired = id_of(add(database, expires_in=-1.0))

    assert _rotate(database, expired, overlap=0) is None
    assert _rotate(database, "0" * 16, overlap=0) is None


def test_of_many_rotations_at_once_one_makes_a_key(database: Database) -> None:
    key_id = id_of(add(database))

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: _rotate(database, key_id, overlap=60), range(4)))

    assert sum(key is not None for key in made) == 1


def test_use_is_written_once_a_minute(database: Database) -> None:
    recent, old = id_of(add(database)), id_of(add(database))
    with database.begin() as conn:
        conn.exec_driver_sql(
            "UPDATE api_keys SET last_used_at = now() - interval '59 seconds' WHERE id = %s",
            (recent,),
        )
        conn.exec_driver_sql(
            "UPDATE api_keys SET last_used_at = now() - interval '61 seconds' WHERE id = %s",
            (old,),
        )
    with database.begin() as conn:
        keys.note_used(conn, [recent, old, "0" * 16])

    used = {key: _find(database, key).last_used_at for key in (recent, old)}

    assert None not in used.values()
    now = dt.datetime.now(dt.UTC)
    ages = {key: (now - at).total_seconds() for key, at in used.items() if at is not None}
    assert ages[old] < 30 < ages[recent]


def test_a_name_that_cannot_be_stored_is_refused(database: Database) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        add(database, name="nul \0")
