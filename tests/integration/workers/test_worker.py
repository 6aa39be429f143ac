"""A real worker process: with a broker, without one, killed, stalled and stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from storage import fleet, lifecycle
from storage.database import Database
from storage.states import BatchStatus, Lane
from tests.support.redis import redis_server
from tests.support.waiting import until
from tests.support.workers import Jobs, Processes
from workers.queues import WakeUps

Wait = Callable[[int], None]
SLOW = {"PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND": "20"}


def repeats(database: Database, batch_id: str) -> int:
    """Admissions beyond the first of each prompt."""
    with database.begin() as conn:
        query = text("SELECT sum(attempts - 1) FROM requests WHERE batch_id = :id")
        return int(conn.execute(query, {"id": batch_id}).scalar_one())


def told(jobs: Jobs) -> dict[str, Any]:
    """What the worker last said of itself."""
    with jobs.database.begin() as conn:
        (worker,) = fleet.workers(conn)
    return dict(worker.stats)


def assert_one_good_outcome_each(jobs: Jobs, batch_id: str, prompts: int) -> None:
    batch = jobs.get(batch_id)
    assert (batch.status, batch.completed, batch.failed) == (BatchStatus.COMPLETED, prompts, 0)
    rows = jobs.results(batch_id)
    assert [row.position for row in rows] == list(range(prompts))
    assert all(row.text == f"echo: prompt {row.position}" for row in rows)


def test_a_worker_finishes_a_job_by_itself_when_no_message_ever_comes(
    jobs: Jobs, processes: Processes
) -> None:
    batch = jobs.post(200)
    processes.start("worker", PENSTOCK_BROKER__URL="redis://127.0.0.1:1/0")
    until("the job ends", lambda: jobs.finished(batch))
    assert_one_good_outcome_each(jobs, batch, 200)
    counted = {"boot", "engine_seconds", "peak_memory", "prefix_tokens", "saved_rows"}
    until("it tells what that cost", lambda: counted <= told(jobs).keys())
    until("it has told of all", lambda: told(jobs)["tokens_out"] >= 400)
    assert told(jobs)["engine_seconds"] > 0


def test_a_job_that_comes_after_its_broker_died_is_done_all_the_same(
    jobs: Jobs, processes: Processes
) -> None:
    with redis_server() as socket:
        broker = {"PENSTOCK_BROKER__URL": f"redis+socket://{socket}"}
        worker = processes.start("worker", **broker)
        dispatcher = processes.start("dispatch", **broker)
        until("the consumer is ready", lambda: "consumer.ready" in processes.log_of(worker))
        until("it dispatches", lambda: "dispatcher.active" in processes.log_of(dispatcher))
    batch = jobs.post(2_000)
    until("the job ends", lambda: jobs.finished(batch))
    assert_one_good_outcome_each(jobs, batch, 2_000)
    assert (worker.poll(), dispatcher.poll()) == (None, None)


def test_a_wake_up_reaches_the_worker_through_celery(
    jobs: Jobs, processes: Processes, wait_for_worker: Wait, redis_url: str
) -> None:
    worker = processes.start("worker", PENSTOCK_WORKER__POLL="3600")
    wait_for_worker(1)
    until("the consumer is ready", lambda: "consumer.ready" in processes.log_of(worker))
    batch = jobs.post(130)
    wake_ups = WakeUps(redis_url, "penstock:")
    wake_ups.send("fake", "bulk")
    until("the job ends", lambda: jobs.finished(batch))
    assert_one_good_outcome_each(jobs, batch, 130)
    wake_ups.close()


def test_the_dispatcher_wakes_a_worker_that_nobody_told(
    jobs: Jobs, processes: Processes, wait_for_worker: Wait
) -> None:
    processes.start("worker", PENSTOCK_WORKER__POLL="3600")
    wait_for_worker(1)
    batch = jobs.post(130)
    processes.start("dispatch")
    until("the job ends", lambda: jobs.finished(batch))
    assert_one_good_outcome_each(jobs, batch, 130)


def test_a_killed_worker_repeats_only_what_was_running_and_its_successor_ends_the_job(
    jobs: Jobs, processes: Processes, database: Database
) -> None:
    batch = jobs.post(200)
    first = processes.start("worker", PENSTOCK_MODEL__MAX_ROWS="32", **SLOW)
    until("some outcomes", lambda: jobs.done(batch) > 0)
    first.kill()
    first.wait(timeout=10)
    processes.start("worker", **SLOW)  # the same slot: it frees the leases at once
    until("the job ends", lambda: jobs.finished(batch))
    assert_one_good_outcome_each(jobs, batch, 200)
    # 32 run, 16 were admitted ahead, and 32 may have ended and not be stored yet.
    assert repeats(database, batch) <= 80


def test_a_stalled_worker_loses_its_lease_and_its_late_writes_change_nothing(
    jobs: Jobs, processes: Processes, database: Database
) -> None:
    batch = jobs.post(64)
    stalled = processes.start("worker", **SLOW)
    until("it runs", lambda: _running(database, batch) > 0)
    os.kill(stalled.pid, signal.SIGSTOP)
    processes.start("dispatch")
    processes.start("worker", PENSTOCK_WORKER__SLOT="test-1")
    until("the other one ends the job", lambda: jobs.finished(batch))
    before = jobs.results(batch)
    os.kill(stalled.pid, signal.SIGCONT)
    until("it learns of it", lambda: "shard.lost" in processes.log_of(stalled))
    assert jobs.results(batch) == before
    assert_one_good_outcome_each(jobs, batch, 64)


def test_sigterm_gives_unfinished_prompts_back_without_penalty_and_exits_well(
    jobs: Jobs, processes: Processes, database: Database
) -> None:
    batch = jobs.post(64)
    worker = processes.start("worker", PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND="0.5")
    until("it runs", lambda: _running(database, batch) > 0)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=20) == 0
    with database.begin() as conn:
        query = text("SELECT state, attempts, crashes FROM requests WHERE batch_id = :id")
        rows = {tuple(row) for row in conn.execute(query, {"id": batch})}
        shards = set(conn.execute(text("SELECT state FROM shards")).scalars())
    assert rows == {("pending", 0, 0)}
    assert shards == {"ready"}


def test_sigterm_under_load_ends_in_the_grace_period_and_nothing_runs_twice(
    jobs: Jobs, processes: Processes, database: Database
) -> None:
    batch = jobs.post(400)
    load = {"PENSTOCK_MODEL__MAX_ROWS": "32", "PENSTOCK_WORKER__GRACE": "20", **SLOW}
    worker = processes.start("worker", **load)
    until("some outcomes", lambda: jobs.done(batch) > 0)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=20) == 0
    with database.begin() as conn:
        query = text("SELECT DISTINCT state, attempts, crashes FROM requests WHERE batch_id = :id")
        rows = {tuple(row) for row in conn.execute(query, {"id": batch})}
    assert rows == {("done", 1, 0), ("pending", 0, 0)}
    before = jobs.results(batch)
    processes.start("worker")
    until("the job ends", lambda: jobs.finished(batch))
    assert_one_good_outcome_each(jobs, batch, 400)
    assert repeats(database, batch) == 0
    assert set(before) <= set(jobs.results(batch))


def test_a_second_sigterm_does_not_cut_the_grace_period_short(
    jobs: Jobs, processes: Processes, database: Database
) -> None:
    batch = jobs.post(8)
    worker = processes.start(
        "worker", PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND="0.4", PENSTOCK_WORKER__GRACE="30"
    )
    until("it runs", lambda: _running(database, batch) > 0)
    worker.send_signal(signal.SIGTERM)
    until("it drains", lambda: "worker.draining" in processes.log_of(worker))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=40) == 0
    assert jobs.done(batch) == 8


def test_sigterm_ends_a_worker_whose_broker_is_away(jobs: Jobs, processes: Processes) -> None:
    batch = jobs.post(10)
    worker = processes.start("worker", PENSTOCK_BROKER__URL="redis://127.0.0.1:1/0")
    until("the job ends", lambda: jobs.finished(batch))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 0


def test_a_second_process_under_the_same_slot_ends_the_first(
    processes: Processes, wait_for_worker: Wait
) -> None:
    first = processes.start("worker")
    wait_for_worker(1)
    processes.start("worker")
    assert first.wait(timeout=30) != 0


def test_a_chat_does_not_wait_for_a_job_that_fills_the_engine(
    jobs: Jobs, processes: Processes, wait_for_worker: Wait
) -> None:
    bulk = jobs.post(2_000)
    processes.start("worker", **SLOW)
    wait_for_worker(1)
    until("the job runs", lambda: jobs.done(bulk) > 0)
    chat = jobs.post(1, lane=Lane.EXPRESS)
    until("the chat is answered", lambda: jobs.finished(chat))
    assert jobs.done(bulk) < 2_000


def test_cancelled_work_leaves_the_engine_and_the_worker_goes_on(
    jobs: Jobs, processes: Processes, database: Database
) -> None:
    batch = jobs.post(64)
    processes.start("worker", PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND="0.2")
    until("it runs", lambda: _running(database, batch) > 0)
    with database.begin() as conn:
        lifecycle.request_cancel(conn, "default", batch)
        lifecycle.close_open(conn)
        lifecycle.finalize(conn, batch)
    assert jobs.get(batch).status is BatchStatus.CANCELLED
    chat = jobs.post(1, lane=Lane.EXPRESS)
    until("the next one is claimed", lambda: _running(database, chat) > 0)


@pytest.mark.parametrize("victim", ["active", "standby"])
def test_one_dispatcher_is_active_and_the_other_takes_over(
    victim: str, jobs: Jobs, processes: Processes, wait_for_worker: Wait
) -> None:
    processes.start("worker", PENSTOCK_WORKER__POLL="3600")
    wait_for_worker(1)
    first = processes.start("dispatch")
    until("the first is active", lambda: "dispatcher.active" in processes.log_of(first))
    second = processes.start("dispatch")
    until("the second stands by", lambda: "standing_by" in processes.log_of(second))
    (first if victim == "active" else second).kill()
    batch = jobs.post(70)
    until("the job ends", lambda: jobs.finished(batch))


def _running(database: Database, batch_id: str) -> int:
    with database.begin() as conn:
        query = text("SELECT count(*) FROM requests WHERE batch_id = :id AND state = 'running'")
        return int(conn.execute(query, {"id": batch_id}).scalar_one())
