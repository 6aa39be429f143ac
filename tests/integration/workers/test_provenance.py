"""A worker's weights are hashed beside its work, and stored with its slot."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from storage import fleet
from storage.database import Database
from tests.support.waiting import until
from workers.provenance import Provenance, hashes_of, versions


def info_of(database: Database) -> dict[str, object]:
    with database.begin() as conn:
        return dict(conn.execute(text("SELECT info FROM workers")).scalar_one())


def test_hashes_come_to_what_the_worker_said_when_it_registered(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    take = hashes_of(str(tmp_path), "revision")
    with database.begin() as conn:
        fleet.register(conn, "slot", "boot", "m", {"name": "m", "versions": versions()})

    stale = Provenance(database, "slot", "earlier", take)
    ours = Provenance(database, "slot", "boot", take)
    stale.start()
    until("the stale one has ended", lambda: not stale.alive())
    assert "weights" not in info_of(database)
    ours.start()
    until("the hashes are there", lambda: "weights" in info_of(database))

    info = info_of(database)
    assert info["name"] == "m"
    assert info["weights"] == take(lambda: False)
    assert {"python", "penstock", "transformers"} <= versions().keys()
    assert ours.stop() and stale.stop()


def test_a_model_without_weights_says_nothing_of_them(database: Database) -> None:
    with database.begin() as conn:
        fleet.register(conn, "slot", "boot", "fake", {})

    provenance = Provenance(database, "slot", "boot", hashes_of("no-such-model", ""))
    provenance.start()
    until("it has ended", lambda: not provenance.alive())

    assert info_of(database) == {}
