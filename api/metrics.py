"""Prometheus metrics: of this process as they happen, of queue and workers at scrape time.

A worker's figures are exported under their own names, whatever it says of itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from storage.records import LaneDepth, WorkerRecord

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,60}")
#: Figures of a worker that have names of their own: the contract's, and those with a unit.
NAMES: Final = {
    "gpu_memory_usage_bytes": "gpu_memory_usage_bytes",
    "cpu_usage_percent": "cpu_usage_percent",
    "ttft": "penstock_worker_ttft_seconds",
    "time_per_token": "penstock_worker_time_per_token_seconds",
    "oldest_waiting": "penstock_worker_queue_age_seconds",
    "last_step_age": "penstock_worker_last_step_age_seconds",
    "peak_memory": "penstock_worker_peak_memory_bytes",
    "energy": "penstock_worker_energy_joules",
}
#: Figures of a worker that only grow, from its start on.
COUNTS: Final = frozenset(
    {"lease_losses", "repeats", "engine_seconds", "energy", "prefix_tokens", "saved_rows"}
)
BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the database says at scrape time; `up` False when it was not to be asked."""

    up: bool
    lanes: list[LaneDepth]
    workers: list[WorkerRecord]
    active: int  #: conversations
    webhooks: Mapping[str, int] = field(default_factory=dict)  #: attempts by outcome


class Metrics:
    """One registry a process object, so that several apps can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = Counter(
            "inference_requests",
            "Prompts taken in by this process (accepted) and chats it answered, by outcome.",
            ["model", "status"],
            registry=self.registry,
        )
        self._duration = Histogram(
            "inference_request_duration_seconds",
            "From a chat's arrival at this process to its answer.",
            ["model"],
            buckets=BUCKETS,
            registry=self.registry,
        )

        self.waiting = Gauge(
            "penstock_waiting_clients",
            "Clients of this process that wait for an answer.",
            registry=self.registry,
        )

    def count_accepted(self, model: str, prompts: int) -> None:
        self._requests.labels(model, "accepted").inc(prompts)

    def count_chat(self, model: str, status: str, seconds: float) -> None:
        self._requests.labels(model, status).inc()
        self._duration.labels(model).observe(seconds)

    def render(self, snapshot: Snapshot) -> bytes:
        """Both halves in the text format."""
        return generate_latest(self.registry) + generate_latest(_Collected(snapshot))


class _Collected(CollectorRegistry):
    """A registry of one snapshot, without a lock or names to keep."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(auto_describe=False)
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("penstock_database_up", "1 when the database answered.")
        up.add_metric([], float(self._snapshot.up))
        yield up
        if self._snapshot.up:
            yield from _lanes(self._snapshot.lanes)
            yield from _workers(self._snapshot.workers)
            active = GaugeMetricFamily(
                "active_conversations", "Conversations that had a turn in the last hour."
            )
            active.add_metric([], self._snapshot.active)
            yield active
            yield _webhooks(self._snapshot.webhooks)


def _lanes(lanes: Iterable[LaneDepth]) -> Iterator[Metric]:
    labels = ["model", "lane"]
    depth = GaugeMetricFamily("penstock_queue_depth", "Prompts without an outcome.", labels=labels)
    age = GaugeMetricFamily(
        "penstock_queue_age_seconds", "Age of the oldest ready shard.", labels=labels
    )
    shards = GaugeMetricFamily(
        "penstock_shards", "Open shards by state.", labels=[*labels, "state"]
    )
    for lane in lanes:
        key = [lane.model, lane.lane.value]
        depth.add_metric(key, lane.open_requests)
        age.add_metric(key, lane.oldest_seconds)
        shards.add_metric([*key, "ready"], lane.ready_shards)
        shards.add_metric([*key, "leased"], lane.leased_shards)
    yield from (depth, age, shards)


def _webhooks(outcomes: Mapping[str, int]) -> Metric:
    attempts = CounterMetricFamily(
        "penstock_webhook_attempts",
        "Attempts to deliver events, by what came of them.",
        labels=["outcome"],
    )
    for outcome in ("delivered", "retried", "dead"):
        attempts.add_metric([outcome], outcomes.get(outcome, 0))
    return attempts


def _workers(workers: list[WorkerRecord]) -> Iterator[Metric]:
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    for worker in workers:
        figures = {**worker.stats, "heartbeat_age_seconds": worker.age}
        for name, value in sorted(figures.items()):
            by_lane = value if isinstance(value, dict) else {"": value}
            numbers = {k: v for k, v in by_lane.items() if isinstance(v, int | float)}
            if not numbers or not NAME.fullmatch(name):
                continue
            family = families.setdefault(name, _worker_family(name))
            for lane, number in numbers.items():
                family.add_metric([worker.slot, worker.model, str(lane)], number)
    yield from families.values()


def _worker_family(name: str) -> GaugeMetricFamily | CounterMetricFamily:
    family = CounterMetricFamily if name in COUNTS else GaugeMetricFamily
    return family(
        NAMES.get(name, f"penstock_worker_{name}"),
        f"`{name}` as the worker last said it.",
        labels=["slot", "model", "lane"],
    )
