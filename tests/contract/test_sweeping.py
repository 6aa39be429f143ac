"""What is left of files that are too old, and of uploads that broke off: nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import text
from starlette.testclient import TestClient

from api import sweeping
from api.offload import Offload
from penstock.ids import new_id
from storage.blobs import LocalBlobs
from storage.database import Database


def post(client: TestClient) -> str:
    form = {"files": {"file": ("f", b"x")}, "data": {"purpose": "batch"}}
    return str(client.post("/v1/files", **form).json()["id"])  # type: ignore[arg-type]


def test_expired_files_and_orphans_go_and_the_rest_stays(
    client: TestClient, database: Database, blobs: LocalBlobs, tmp_path: Path
) -> None:
    kept, expired, orphan = post(client), post(client), new_id("file")
    (tmp_path / "blobs" / f"{orphan}.part").write_bytes(b"half of an upload")
    with database.begin() as conn:
        old = "UPDATE files SET expires_at = now() - interval '1s' WHERE id = :id"
        conn.execute(text(old), {"id": expired})
    assert client.get(f"/v1/files/{expired}").status_code == 404
    offload = Offload(database, 5)

    asyncio.run(sweeping.delete_expired(offload, blobs))
    assert set(blobs.idle(-60)) == {kept, orphan}
    asyncio.run(sweeping.delete_orphans(offload, blobs, age=3_600))
    assert set(blobs.idle(-60)) == {kept, orphan}, "it may be an upload that goes on"
    asyncio.run(sweeping.delete_orphans(offload, blobs, age=-60))

    assert set(blobs.idle(-60)) == {kept}
    assert client.get(f"/v1/files/{kept}/content").content == b"x"
