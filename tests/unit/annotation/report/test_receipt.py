"""What a run cost, from counters of workers that come, go and die."""

from __future__ import annotations

import json

from penstock.annotation.records import Receipt
from penstock.annotation.report import receipt
from penstock.annotation.report.receipt import Meter
from penstock.errors import Forbidden
from penstock.schemas.health import CacheStats, ModelStats, Stats, WorkerStats

PLAIN = Receipt(seconds=10.0, rows=100, prompt_tokens=1_000, completion_tokens=100)


class Service:
    """Answers with the workers that it is told, as `/stats` does."""

    def __init__(self, **workers: dict[str, object]) -> None:
        self.workers = workers
        self.asked = 0
        self.ages: list[float] = []

    def stats(self) -> Stats:
        self.asked += 1
        age = self.ages.pop(0) if self.ages else 0.0
        return Stats(
            conversations=0,
            cache=CacheStats(size=0, hits=0, misses=0),
            queue_depth=0,
            queue=[],
            model=ModelStats(name="m", loaded=True),
            workers=[
                WorkerStats(
                    slot="gpu-0", model="m", heartbeat_age=age, stats={"boot": boot, **told}
                )
                for boot, told in self.workers.items()
            ],
        )


class Closed:
    """A service that does not tell this key."""

    def stats(self) -> Stats:
        raise Forbidden


def test_counts_what_came_since_the_first_look_of_all_workers() -> None:
    service = Service(
        a={"engine_seconds": 100.0, "energy": 50.0, "tokens_read": 1_000, "tokens_needed": 500},
        b={"engine_seconds": 7.0, "peak_memory": 3_000},
    )
    meter = Meter(service)
    service.workers = {
        "a": {
            "engine_seconds": 104.0,
            "energy": 90.0,
            "tokens_read": 3_000,
            "tokens_needed": 2_000,
        },
        "b": {"engine_seconds": 8.5, "peak_memory": 5_000},
    }

    found = meter.complete(PLAIN)

    assert (found.engine_seconds, found.energy, found.peak_memory) == (5.5, 40.0, 5_000)
    assert found.padded_share == 0.25  # 1,500 needed of the 2,000 read since then
    assert found.prefix_tokens is None  # nobody told it
    assert (found.rows, found.seconds) == (100, 10.0)


def test_a_worker_that_began_anew_counts_from_zero_and_the_dead_one_stays_counted() -> None:
    service = Service(first={"engine_seconds": 100.0})
    meter = Meter(service, None)
    service.workers = {"first": {"engine_seconds": 130.0}}
    meter = Meter(service, json.loads(json.dumps(meter.state)))
    service.workers = {"second": {"engine_seconds": 12.0}}

    assert meter.complete(PLAIN).engine_seconds == 42.0


def test_another_process_goes_on_from_the_stored_state() -> None:
    service = Service(a={"engine_seconds": 100.0})
    stored = json.loads(json.dumps(Meter(service).state))
    service.workers = {"a": {"engine_seconds": 109.0}}

    assert Meter(service, stored).complete(PLAIN).engine_seconds == 9.0


def test_waits_for_figures_that_are_newer_than_the_end() -> None:
    service = Service(a={"engine_seconds": 1.0})
    meter = Meter(service)
    service.ages = [0.9, 0.01]

    meter.complete(PLAIN)

    assert service.asked == 3  # at the start, an old answer, a new one


def test_looks_no_more_often_than_it_should() -> None:
    service = Service(a={"engine_seconds": 1.0})
    meter = Meter(service)

    for _ in range(50):
        meter.look()

    assert service.asked == 1
    assert receipt.EVERY >= 1


def test_a_service_that_tells_nothing_leaves_the_receipt_as_it_is() -> None:
    assert Meter(Closed()).complete(PLAIN) == PLAIN
    assert Meter(Service()).complete(PLAIN) == PLAIN
    assert Meter(Service(a={"leases": 3})).complete(PLAIN) == PLAIN
