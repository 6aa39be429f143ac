"""What the committer stores, however large."""

from __future__ import annotations

import json
from dataclasses import replace

from storage import reading
from storage.database import Database
from tests.support import jobs
from tests.support.waiting import until
from workers.committer import MAX_DETAILS, Committer
from workers.lease import Lease


def test_outcomes_with_large_details_are_stored_in_portions(database: Database) -> None:
    batch = jobs.store(database, 5)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    lease = Lease(shard)
    committer = Committer(database, lease_seconds=60, on_lost=lambda lease: None)
    detail = json.dumps({"logprobs": "x" * (MAX_DETAILS * 2 // 3)})
    for position in range(5):
        committer.put(lease, replace(jobs.answer(position), detail=detail))

    committer.start()

    assert lease.wait(30)
    assert committer.stop()
    assert (lease.ok, lease.lost) == (5, False)
    with database.begin() as conn:
        assert reading.details(conn, batch.id, 0, 9) == dict.fromkeys(range(5), detail)
        found = reading.get_batch(conn, jobs.OWNER, batch.id)
    assert found is not None and found.completed == 5


def test_an_outcome_is_stored_though_its_shard_goes_on(database: Database) -> None:
    jobs.store(database, 5)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    lease = Lease(shard)
    committer = Committer(database, lease_seconds=60, on_lost=lambda lease: None)
    committer.start()

    lease.ended()
    committer.put(lease, jobs.answer(0))

    until("it is stored", lambda: lease.ok == 1)
    assert committer.stop()
    assert not lease.over
