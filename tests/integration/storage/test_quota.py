"""Bounds on what waits: of an owner and of all, exact under many posts, and cheap to count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import text

from penstock.errors import LimitReached, Overloaded, PenstockError, TooLarge
from storage import intake, lifecycle, quota
from storage.database import Database
from storage.quota import Amount, Limits
from storage.states import Lane
from storage.tables import SHARD_SIZE
from tests.support import jobs

WIDE = Amount(jobs=1_000, prompts=1_000, bytes=1_000_000)
#: `[["user","prompt 0"]]`, as it is stored.
PROMPT_BYTES = 21
FINISHED = text("""
    INSERT INTO batches (id, owner, kind, model, lane, status, priority, params, metadata, total)
    SELECT 'done' || n, 'default', 'batch', 'fake', 'bulk', :status, 0, '{}', '{}', 1
    FROM generate_series(1, 20000) AS n
""")
SCANS = text("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'batches'")


def limits(owner: Amount = WIDE, total: Amount = WIDE) -> Limits:
    return Limits(owner, total)


def post(database: Database, bounds: Limits, count: int = 1, **changes: object) -> None:
    """Store a job within bounds, as the API does."""
    batch = jobs.new_batch(**changes)
    with database.begin() as conn:
        quota.check(conn, bounds, batch.owner, batch.lane, Amount(1, count, 0))
        intake.create_batch(conn, batch, jobs.prompts(count))
        quota.settle(conn, bounds, batch.owner, batch.lane)


def stored(database: Database) -> int:
    with database.begin() as conn:
        return int(conn.execute(text("SELECT count(*) FROM requests")).scalar_one())


@pytest.mark.parametrize("kind", ["prompts", "jobs", "bytes"])
def test_an_owner_at_a_bound_is_refused_by_its_name_and_another_is_not(
    database: Database, kind: str
) -> None:
    bound = {"prompts": 4, "jobs": 2, "bytes": 4 * PROMPT_BYTES}[kind]
    bounds = limits(owner=replace(WIDE, **{kind: bound}))
    post(database, bounds, 2, owner="a")
    post(database, bounds, 2, owner="a")

    with pytest.raises(LimitReached, match=f"limit of {bound} queued {kind}"):
        post(database, bounds, owner="a")
    post(database, bounds, 4, owner="b")

    assert stored(database) == 8


@pytest.mark.parametrize("kind", ["prompts", "jobs", "bytes"])
def test_at_the_bound_of_all_everybody_is_refused(database: Database, kind: str) -> None:
    bound = {"prompts": 4, "jobs": 2, "bytes": 4 * PROMPT_BYTES}[kind]
    bounds = limits(total=replace(WIDE, **{kind: bound}))
    post(database, bounds, 2, owner="a")
    post(database, bounds, 2, owner="b")

    for owner in ("a", "new"):
        with pytest.raises(Overloaded, match=f"limit of {bound} queued {kind}"):
            post(database, bounds, owner=owner)

    assert stored(database) == 4


@pytest.mark.parametrize("kind", ["prompts", "bytes"])
def test_a_job_that_no_empty_queue_would_take_is_too_large(database: Database, kind: str) -> None:
    bound = {"prompts": 4, "bytes": 4 * PROMPT_BYTES}[kind]

    with pytest.raises(TooLarge, match=f"{bound} queued {kind}"):
        post(database, limits(owner=replace(WIDE, **{kind: bound})), 5)

    assert stored(database) == 0


def test_lanes_are_counted_apart(database: Database) -> None:
    bounds = limits(owner=replace(WIDE, prompts=2))
    post(database, bounds, 2)

    post(database, bounds, 1, lane=Lane.EXPRESS)

    with pytest.raises(LimitReached):
        post(database, bounds, 1)


def test_what_is_done_cancelled_or_failed_makes_room(database: Database) -> None:
    bounds = limits(owner=replace(WIDE, prompts=SHARD_SIZE))
    post(database, bounds, SHARD_SIZE)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    jobs.commit(database, shard, [0, 1, 2])

    post(database, bounds, 3)
    with pytest.raises(LimitReached):
        post(database, bounds)
    with database.begin() as conn:
        lifecycle.request_cancel(conn, jobs.OWNER, shard.batch_id)

    post(database, bounds, SHARD_SIZE - 3)


def test_bytes_count_by_the_share_of_prompts_that_are_open(database: Database) -> None:
    bounds = limits(owner=replace(WIDE, bytes=10 * PROMPT_BYTES))
    post(database, bounds, 10)
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    with pytest.raises(LimitReached):
        post(database, bounds)

    jobs.commit(database, shard, [0, 1, 2])

    post(database, bounds, 3)


def test_the_wait_follows_from_the_rate_of_work_and_has_bounds(database: Database) -> None:
    bounds = limits(owner=replace(WIDE, prompts=SHARD_SIZE))
    post(database, bounds, SHARD_SIZE)
    asked = [_wait(database, bounds)]
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    jobs.commit(database, shard, list(range(10)))
    for age in (50, 5_000):
        with database.begin() as conn:
            begun = text("UPDATE batches SET started_at = now() - make_interval(secs => :age)")
            conn.execute(begun, {"age": age})
        asked.append(_wait(database, bounds, 18))

    unknown, five_a_second_less, at_most = asked
    assert unknown == 10
    assert five_a_second_less == pytest.approx(8 / (10 / 50), abs=2)
    assert at_most == 60


def _wait(database: Database, bounds: Limits, count: int = 1) -> int:
    with pytest.raises(LimitReached) as refused:
        post(database, bounds, count)
    assert refused.value.retry_after is not None
    return refused.value.retry_after


@pytest.fixture
def wide(database_url: str) -> Iterator[Database]:
    opened = Database(database_url, pool_size=16)
    yield opened
    opened.close()


@pytest.mark.parametrize("which", ["owner", "total"])
def test_posts_at_once_do_not_slip_over_a_bound_together(wide: Database, which: str) -> None:
    bound = replace(WIDE, prompts=50)
    bounds = limits(owner=bound) if which == "owner" else limits(total=bound)
    post(wide, bounds, 25)  # from half of the bound on, the count is exact

    def try_to_post(number: int) -> str:
        try:
            post(wide, bounds, 5, owner=jobs.OWNER if which == "owner" else f"owner-{number}")
        except PenstockError as error:
            return error.code
        return "stored"

    with ThreadPoolExecutor(16) as pool:
        answers = Counter(pool.map(try_to_post, range(32)))

    refusal = "rate_limit_exceeded" if which == "owner" else "overloaded"
    assert answers == {"stored": 5, refusal: 27}
    assert stored(wide) == 50


@pytest.mark.parametrize("analyzed", ["never", "while all was live", "afterwards"])
def test_counting_reads_no_job_that_is_over(database_url: str, analyzed: str) -> None:
    database = Database(database_url, pool_size=1)
    with database.begin() as conn:
        live = analyzed == "while all was live"
        conn.execute(FINISHED, {"status": "queued" if live else "completed"})
        if analyzed != "never":
            conn.execute(text("ANALYZE batches"))
        conn.execute(text("UPDATE batches SET status = 'completed'"))
    jobs.store(database, 3)
    before = _scans(database)

    post(database, limits(), 3)

    assert _scans(database) == before
    database.close()


def _scans(database: Database) -> int:
    with database.begin() as conn:
        conn.execute(text("SELECT pg_stat_force_next_flush()"))
    with database.begin() as conn:
        return int(conn.execute(SCANS).scalar_one())
