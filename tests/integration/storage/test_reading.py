"""What others see of jobs, results and the queue."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from storage import leases, overview, reading
from storage.database import Database
from storage.states import Lane
from storage.tables import SHARD_SIZE
from storage.text import storable_json
from tests.support import jobs


def test_a_job_is_seen_by_its_owner_only(database: Database) -> None:
    batch = jobs.store(database)

    with database.begin() as conn:
        assert reading.get_batch(conn, jobs.OWNER, batch.id) is not None
        assert reading.get_batch(conn, "somebody", batch.id) is None
        assert reading.get_batch(conn, jobs.OWNER, "batch_unknown") is None
        assert overview.list_jobs(conn, "somebody", 9) == []


def test_jobs_are_listed_newest_first(database: Database) -> None:
    ids = [jobs.store(database).id for _ in range(4)]

    with database.begin() as conn:
        listed = overview.list_jobs(conn, jobs.OWNER, limit=3)

    assert [batch.id for batch in listed] == ids[:0:-1]


def test_results_come_by_position_and_only_those_that_are_there(database: Database) -> None:
    batch = jobs.store(database, 10)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    jobs.commit(database, shard, [7, 2, 5])

    with database.begin() as conn:
        page = reading.results(conn, batch.id, 2, 4)

    assert [row.position for row in page] == [2, 5]
    assert (page[0].text, page[0].finish_reason, page[0].error_code) == ("answer 2", "stop", None)
    assert (page[0].prompt_tokens, page[0].completion_tokens) == (3, 2)


def test_details_come_by_position_and_only_those_that_are_there(database: Database) -> None:
    batch = jobs.store(database, 4)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    detail = {"probabilities": {"a": 0.75, "b\0": 0.25}, "half": "\ud800", "n": [1, None]}
    outcomes = [
        replace(jobs.answer(1), detail=storable_json(detail)),
        jobs.answer(2),
        replace(jobs.answer(3), detail="{}"),
    ]
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)

    with database.begin() as conn:
        found = reading.details(conn, batch.id, 0, 3)
        rows = reading.results(conn, batch.id, 0, 4)

    assert {position: json.loads(text) for position, text in found.items()} == {
        1: {"probabilities": {"a": 0.75, "b\ufffd": 0.25}, "half": "\ufffd", "n": [1, None]}
    }
    assert [row.text for row in rows] == ["answer 1", "answer 2", "answer 3"]


@pytest.mark.parametrize(
    ("params", "detailed"),
    [
        ({}, False),
        ({"n": 1, "logprobs": False, "mode": "generate", "choices": ["a", "b"]}, False),
        ({"mode": "count", "choices": ["a", "b"]}, True),
        ({"mode": "count"}, False),
        ({"n": 2}, True),
        ({"logprobs": True}, True),
        ({"mode": "score", "choices": ["a", "b"]}, True),
    ],
)
def test_a_job_says_whether_its_results_have_more_than_a_text(
    database: Database, params: dict[str, object], detailed: bool
) -> None:
    assert jobs.store(database, params=params).detailed is detailed


def test_the_depth_of_each_lane_counts_what_is_open(database: Database) -> None:
    jobs.store(database, 2 * SHARD_SIZE)
    jobs.store(database, 1, lane=Lane.EXPRESS)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    jobs.commit(database, shard, [request.position for request in shard.requests[:2]])

    with database.begin() as conn:
        bulk, express = reading.lane_depths(conn)

    assert (bulk.lane, bulk.ready_shards, bulk.leased_shards) == (Lane.BULK, 1, 1)
    assert (bulk.open_requests, bulk.model) == (2 * SHARD_SIZE - 2, jobs.MODEL)
    assert bulk.oldest_seconds == pytest.approx(0, abs=60)
    assert (express.lane, express.ready_shards, express.open_requests) == (Lane.EXPRESS, 1, 1)


def test_an_empty_queue_has_no_depth(database: Database) -> None:
    jobs.store(database)
    jobs.run_all(database)

    with database.begin() as conn:
        assert reading.lane_depths(conn) == []
        assert reading.ready_lanes(conn, 5) == []


def test_a_lane_whose_shards_are_all_leased_waits_for_nothing(database: Database) -> None:
    jobs.store(database)
    jobs.claim(database)

    with database.begin() as conn:
        (depth,) = reading.lane_depths(conn)

    assert (depth.ready_shards, depth.leased_shards, depth.oldest_seconds) == (0, 1, 0.0)


def test_every_lane_with_ready_shards_is_named_and_counted_as_far_as_asked(
    database: Database,
) -> None:
    jobs.store(database, 5 * SHARD_SIZE)
    jobs.store(database, 1, model="another")
    jobs.store(database, 1, lane=Lane.EXPRESS)

    with database.begin() as conn:
        assert reading.ready_lanes(conn, 2) == [
            (jobs.MODEL, Lane.EXPRESS, 1),
            ("another", Lane.BULK, 1),
            (jobs.MODEL, Lane.BULK, 2),
        ]
