"""Jobs are stored whole, in order, once, and whatever is in their text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from penstock.errors import InvalidRequest, PromptError
from storage import intake, lifecycle, overview, reading
from storage.database import Database
from storage.records import Batch, NewPrompt
from storage.states import BatchStatus, Lane
from storage.tables import SHARD_SIZE
from tests.support import jobs

AWKWARD = [
    "back\\slash \\N \\. \\u0000 written out",
    "tab\there, newline\nand return\r\n",
    "\u2028 \x01 \x7f \x85 \N{ZERO WIDTH SPACE}",
    "emoji \N{PILE OF POO} and 漢字 and e\u0301",
    "quote ' and \" and $1 and %s and :name",
    "",
]


def _claim_all(database: Database) -> dict[int, str]:
    return {
        request.position: request.messages[-1][1]
        for shard in jobs.claim(database, limit=1000)
        for request in shard.requests
    }


def test_prompts_come_back_in_order_and_unchanged(database: Database) -> None:
    texts = [*AWKWARD, *(f"prompt {number}" for number in range(200))]

    with database.begin() as conn:
        batch = intake.create_batch(
            conn, jobs.new_batch(), (NewPrompt((("user", text),)) for text in texts)
        )

    assert (batch.status, batch.total, batch.failed) == (BatchStatus.QUEUED, len(texts), 0)
    assert _claim_all(database) == dict(enumerate(texts))


def test_a_shard_carries_the_jobs_parameters_and_system_prompt(database: Database) -> None:
    params = {"max_tokens": 5, "temperature": 0.0, "stop": ["\n", "END"], "seed": 2**62}
    turns = (("user", "hello"), ("assistant", "hi"), ("user", "and?"))
    batch = jobs.new_batch(
        params=params, system="Be brief.", lane=Lane.EXPRESS, metadata={"run": "7"}
    )
    with database.begin() as conn:
        stored = intake.create_batch(conn, batch, [NewPrompt(turns)])

    (shard,) = jobs.claim(database, lane=Lane.EXPRESS)

    assert (shard.batch_id, shard.lane, shard.alone) == (batch.id, Lane.EXPRESS, False)
    assert (shard.params, shard.system) == (params, "Be brief.")
    assert shard.requests[0].messages == turns
    assert stored.metadata == {"run": "7"}


def test_a_shard_holds_short_and_long_prompts_and_its_neighbors_like_ones(
    database: Database,
) -> None:
    lengths = [(number * 7919) % 2_000 for number in range(20 * SHARD_SIZE)]
    prompts = (NewPrompt((("user", "x" * length),)) for length in lengths)
    with database.begin() as conn:
        intake.create_batch(conn, jobs.new_batch(), prompts)

    shards = [
        sorted(lengths[request.position] for request in shard.requests)
        for shard in jobs.claim(database, limit=20)
    ]

    assert len(shards) == 20
    assert all(shard[0] < 500 and shard[-1] >= 1_500 for shard in shards)
    # A micro-batch that is cut from three of them spans a small part of all lengths.
    for three in zip(shards, shards[1:], shards[2:], strict=False):
        together = sorted(itertools.chain.from_iterable(three))
        assert all(together[at + 47] - together[at] < 250 for at in range(0, 192, 48))
    # Half of the job is about half of the work.
    first, second = (sum(map(sum, half)) for half in (shards[:10], shards[10:]))
    assert 0.9 < first / second < 1.1


@pytest.mark.parametrize("size", [1, SHARD_SIZE, SHARD_SIZE + 1, 128 * SHARD_SIZE + 1])
def test_no_shard_is_larger_than_its_size_and_none_is_empty(database: Database, size: int) -> None:
    batch = jobs.store(database, size)

    with database.begin() as conn:
        remaining = conn.execute(text("SELECT remaining FROM shards ORDER BY id")).scalars().all()

    assert batch.total == sum(remaining) == size
    assert all(0 < count <= SHARD_SIZE for count in remaining)
    assert len(remaining) == -(-size // SHARD_SIZE)


def test_a_prompt_that_cannot_run_fails_alone_with_its_reason(database: Database) -> None:
    prompts = [*jobs.prompts(100)]
    prompts[3] = jobs.bad_prompt()
    prompts[70] = NewPrompt((("user", "a\0b"),))
    prompts[71] = NewPrompt((("user", "half \ud83d"),))
    with database.begin() as conn:
        batch = intake.create_batch(conn, jobs.new_batch(), prompts)

    assert (batch.status, batch.total, batch.failed) == (BatchStatus.QUEUED, 100, 3)
    assert jobs.run_all(database) == 97
    with database.begin() as conn:
        assert lifecycle.finalize(conn) == [batch.id]
        rows = reading.results(conn, batch.id, 0, 100)
    errors = {row.position: row.error_code for row in rows if row.error_code is not None}
    assert len(rows) == 100
    assert errors == {
        3: PromptError.EMPTY,
        70: PromptError.INVALID_TEXT,
        71: PromptError.INVALID_TEXT,
    }
    assert rows[3].error_message == "The prompt is empty."


@pytest.mark.parametrize("count", [0, 1, SHARD_SIZE + 1])
def test_a_job_without_a_runnable_prompt_ends_by_itself(database: Database, count: int) -> None:
    with database.begin() as conn:
        batch = intake.create_batch(conn, jobs.new_batch(), [jobs.bad_prompt()] * count)

    assert jobs.claim(database) == []
    with database.begin() as conn:
        assert lifecycle.finalize(conn) == [batch.id]
        ended = reading.get_batch(conn, jobs.OWNER, batch.id)
    assert ended is not None
    assert (ended.status, ended.failed) == (BatchStatus.FAILED, count)


def test_an_error_in_the_prompts_comes_through_and_nothing_is_stored(database: Database) -> None:
    def broken() -> Iterator[NewPrompt]:
        yield from jobs.prompts(100)
        raise InvalidRequest("The body ends in the middle of a prompt.")

    with (
        pytest.raises(InvalidRequest, match="in the middle"),
        database.begin() as conn,
    ):
        intake.create_batch(conn, jobs.new_batch(), broken())

    with database.begin() as conn:
        assert overview.list_jobs(conn, jobs.OWNER, 99) == []
        assert conn.execute(text("SELECT count(*) FROM requests")).scalar_one() == 0


def test_a_job_that_is_still_being_stored_is_seen_by_nobody(database: Database) -> None:
    with database.begin() as conn:
        batch = intake.create_batch(conn, jobs.new_batch(), jobs.prompts(3))

        assert jobs.claim(database) == []
        with database.begin() as other:
            assert reading.get_batch(other, jobs.OWNER, batch.id) is None


def test_an_idempotency_key_stores_one_job_for_each_owner(database: Database) -> None:
    first = jobs.store(database, 2, idempotency_key="key", body_hash="hash")

    with pytest.raises(intake.IdempotentReplay) as replay:
        jobs.store(database, 2, idempotency_key="key", body_hash="other")
    others = jobs.store(database, 2, idempotency_key="key", owner="somebody")

    assert (replay.value.batch.id, replay.value.batch.body_hash) == (first.id, "hash")
    assert others.id != first.id
    with database.begin() as conn:
        found = intake.find_idempotent(conn, jobs.OWNER, "key")
        assert found is not None and found.id == first.id
        assert intake.find_idempotent(conn, jobs.OWNER, "unknown") is None


def test_fifty_posts_at_once_with_one_key_store_one_job(database_url: str) -> None:
    database = Database(database_url, pool_size=50)

    def post(_: int) -> Batch:
        try:
            return jobs.store(database, 3, idempotency_key="key")
        except intake.IdempotentReplay as replay:
            return replay.batch

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))

    assert len({batch.id for batch in answers}) == 1
    assert all(batch.total == 3 for batch in answers)
    with database.begin() as conn:
        assert len(overview.list_jobs(conn, jobs.OWNER, 99)) == 1
        assert conn.execute(text("SELECT count(*) FROM requests")).scalar_one() == 3
    database.close()


def test_a_job_that_may_expire_knows_when(database: Database) -> None:
    batch = jobs.store(database, 1, expires_in=90.0)

    assert batch.expires_at is not None
    assert (batch.expires_at - batch.created_at).total_seconds() == pytest.approx(90)
    assert jobs.store(database, 1).expires_at is None


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("system", {"system": "a\0b"}),
        ("metadata", {"metadata": {"half \ud83d": "x"}}),
        ("stop", {"params": {"max_tokens": 3, "stop": ["\0"]}}),
        ("idempotency_key", {"idempotency_key": "\0"}),
    ],
)
def test_text_of_the_job_that_cannot_be_stored_is_refused_by_name(
    database: Database, field: str, changes: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        jobs.store(database, 1, **changes)

    assert raised.value.param == field
