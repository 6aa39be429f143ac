"""Whoever reaches the broker can neither run anything, nor end a worker, nor change a row."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from storage import intake
from storage.database import Database
from storage.records import NewPrompt
from storage.states import BatchStatus, Lane
from tests.support.jobs import new_batch
from tests.support.ledger import Ledger, check_consistent, read_ledger
from tests.support.waiting import until
from tests.support.workers import Jobs, Processes
from workers.app import make_app
from workers.messages import TASK
from workers.queues import WakeUps, queue_name

Wait = Callable[[int], None]
QUEUE = queue_name("fake", "bulk")


@pytest.fixture
def worker(processes: Processes, wait_for_worker: Wait) -> Iterator[subprocess.Popen[bytes]]:
    """One that works on messages alone; the same process to the end of the test."""
    process = processes.start("worker", PENSTOCK_WORKER__POLL="3600")
    wait_for_worker(1)
    until("the consumer is ready", lambda: "consumer.ready" in processes.log_of(process))
    yield process
    assert process.poll() is None, processes.log_of(process)


@pytest.fixture
def wake_ups(redis_url: str) -> Iterator[WakeUps]:
    sender = WakeUps(redis_url, "penstock:")
    yield sender
    sender.close()


@pytest.fixture
def push(redis_url: str) -> Iterator[Callable[[bytes | dict[str, Any]], None]]:
    """Put bytes, or a message as JSON, into the worker's queue."""
    with redis.Redis(unix_socket_path=redis_url.removeprefix("redis+socket://")) as client:

        def send(message: bytes | dict[str, Any]) -> None:
            raw = message if isinstance(message, bytes) else json.dumps(message).encode()
            client.lpush(f"penstock:{QUEUE}", raw)

        yield send


def envelope(kwargs: object, task: str = TASK, **parts: Any) -> dict[str, Any]:
    return {
        "body": json.dumps([[], kwargs, {"callbacks": [{"task": "os.system"}]}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": task, "id": "forged", "lang": "py"},
        "properties": {"delivery_tag": "forged", "delivery_info": {}},
    } | parts


def pickled(value: object) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


class Bomb:
    """Ends whoever unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exit, (77,))


GARBAGE: list[bytes | dict[str, Any]] = [
    *(b"\x80\x04N.", b"not json", b"\xff\xfe", b"[]", b"{}", b"5", b"null", b"[" * 100_000),
    pickle.dumps(Bomb()),
    envelope({}, headers=[]),
    envelope({}, headers={"task": TASK}),
    envelope({}, properties=[]),
    envelope({}, body="5"),
    envelope({}, body="[1]"),
    envelope({}, body=pickled(Bomb()), **{"content-type": "application/x-python-serialize"}),
    envelope({}, body="!!python/object/apply:os._exit [77]", **{"content-type": "text/yaml"}),
    envelope({"lane": "bulk"}, task="os.system"),
    envelope({"lane": "bulk"}, task="celery.chord_unlock"),
    envelope({"lane": "1; DROP TABLE results"}),
    envelope({"shard": 10**30, "lane": "bulk"}),
    envelope({"shard": 1, "lane": "bulk", "results": [{"text": "forged"}]}),
    envelope({"lane": "x" * 10_000_000}),
]


def test_what_is_no_wake_up_is_dropped_by_the_same_process_that_then_works_on(
    jobs: Jobs,
    worker: subprocess.Popen[bytes],
    processes: Processes,
    push: Callable[[bytes | dict[str, Any]], None],
    wake_ups: WakeUps,
) -> None:
    for message in GARBAGE:
        push(message)
    refused = "message.refused"
    until(
        "all were refused",
        lambda: processes.log_of(worker).count(refused) == len(GARBAGE),
    )
    batch = jobs.post(70)
    wake_ups.send("fake", "bulk")
    until("the job ends all the same", lambda: jobs.finished(batch))
    assert jobs.get(batch).status is BatchStatus.COMPLETED
    assert "Traceback" not in processes.log_of(worker)


def test_a_forged_wake_up_gets_nothing_but_what_the_worker_would_do_anyway(
    jobs: Jobs,
    worker: subprocess.Popen[bytes],
    push: Callable[[bytes | dict[str, Any]], None],
    wake_ups: WakeUps,
    database: Database,
) -> None:
    other = new_batch(model="another", lane=Lane.BULK)
    with database.begin() as conn:
        intake.create_batch(conn, other, iter([NewPrompt((("user", "hi"),))]))
    before = _ledger(database)
    (shard,) = before.shards
    for lane in ("bulk", "express"):
        push(envelope({"lane": lane}))

    batch = jobs.post(10)  # behind them in the queue, so they came to nothing
    wake_ups.send("fake", "bulk")
    until("the job ends", lambda: jobs.finished(batch))

    after = _ledger(database)
    check_consistent(after)
    assert after.batches[other.id] == before.batches[other.id]
    assert after.shards[shard] == before.shards[shard]
    assert after.requests[other.id, 0] == before.requests[other.id, 0]


def _ledger(database: Database) -> Ledger:
    with database.begin() as conn:
        return read_ledger(conn)


ORDERS: list[tuple[str, dict[str, Any]]] = [
    ("shutdown", {}),
    ("pool_shrink", {"n": 1000}),
    ("pool_restart", {}),
    ("autoscale", {"max": 1, "min": 0}),
    ("rate_limit", {"task_name": TASK, "rate_limit": "1/h"}),
    ("time_limit", {"task_name": TASK, "hard": 1}),
    ("cancel_consumer", {"queue": QUEUE}),
    ("add_consumer", {"queue": "evil"}),
    ("terminate", {"signal": "KILL", "task_id": ["x"]}),
    ("disable_events", {}),
    ("no such command", {"x": 1}),
]


def test_orders_over_the_broker_are_not_obeyed_and_questions_are_answered(
    jobs: Jobs,
    worker: subprocess.Popen[bytes],
    processes: Processes,
    wake_ups: WakeUps,
    redis_url: str,
) -> None:
    asker: Celery = make_app(redis_url, "penstock:")
    for command, arguments in ORDERS:
        asker.control.broadcast(command, arguments=arguments)
    ignored = "pidbox command error"
    until("all were heard", lambda: processes.log_of(worker).count(ignored) == len(ORDERS))

    name = "test-0@penstock"
    assert asker.control.inspect(timeout=5).ping() == {name: {"ok": "pong"}}
    queues = asker.control.inspect(timeout=5).active_queues()[name]
    assert {queue["name"] for queue in queues} == {QUEUE, queue_name("fake", "express")}
    batch = jobs.post(10)
    wake_ups.send("fake", "bulk")
    until("the job ends", lambda: jobs.finished(batch))
